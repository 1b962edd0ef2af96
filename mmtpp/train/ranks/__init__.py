"""The ranks of a training: their places, sums, records, and what watches them."""
