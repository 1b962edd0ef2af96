"""The optimiser benchmark: margins of linear models, and losses of tiny models in few bits."""
