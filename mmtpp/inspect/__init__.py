"""Figures of a data set before any GPU time is spent on it: contents, errors, compression."""
