"""What a training needs besides a model: the order of samples, learning rates, losses, metrics."""
