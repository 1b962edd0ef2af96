"""Experiment tracking with MLflow, which no other package imports."""
