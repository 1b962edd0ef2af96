"""Forecasters without a neural network, with which every model is compared."""
