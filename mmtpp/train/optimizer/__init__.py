"""Optimisers of a training and their settings, built for the parameters of a model."""
