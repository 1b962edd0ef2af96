"""The table of forecasts, and all metrics: their names and their formulas."""
