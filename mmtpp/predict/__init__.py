"""Forecast events that have not occurred yet, and export models for other programs."""
