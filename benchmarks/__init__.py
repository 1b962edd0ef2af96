"""Benchmarks of speed, scale and quality; each writes a page of results next to its module."""
