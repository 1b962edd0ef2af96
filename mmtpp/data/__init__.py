"""From source files to packed samples, distributed by Ray Data."""
