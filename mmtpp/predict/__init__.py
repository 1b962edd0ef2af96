"""Forecasts of events that have not happened yet, and models as files for other programs."""
