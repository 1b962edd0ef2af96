"""Soft tokens: a language model that reads one token an event and forecasts with densities."""
