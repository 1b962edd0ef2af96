"""The temporal expert: a small network that forecasts events from a memory of the past."""
