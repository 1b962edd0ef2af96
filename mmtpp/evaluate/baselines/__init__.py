"""Models without a neural network that every forecast is compared with."""
