"""Checkpoints: written to the local disk, uploaded, and restored."""
