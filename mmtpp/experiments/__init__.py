"""Studies that are options of a training and no product: optimiser geometry, simulated rounding."""
