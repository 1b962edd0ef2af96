"""Hyperparameter sweeps: search space, search, trials and report, on Ray Tune and Ray Train."""
