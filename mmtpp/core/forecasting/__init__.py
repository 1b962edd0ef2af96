"""Forecasts of intervals, the mixture of two models, and scores of events and futures."""
