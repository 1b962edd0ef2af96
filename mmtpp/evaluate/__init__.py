"""Score held-out events: likelihoods, forecasts, texts and long horizons, against baselines."""
