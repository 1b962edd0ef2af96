"""Held-out events scored: likelihoods, forecasts, texts, long horizons."""
