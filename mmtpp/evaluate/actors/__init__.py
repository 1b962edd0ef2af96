"""Ray Data actors: each holds a model and processes the samples of a plan."""
