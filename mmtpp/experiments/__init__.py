"""Studies of optimisers that a training can switch on, kept apart from the product."""
