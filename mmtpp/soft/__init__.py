"""Soft tokens: a language model that reads one token per event and forecasts with densities."""
