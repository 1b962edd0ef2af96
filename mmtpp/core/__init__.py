"""The method itself: events, their tokens and rows, memory, forecasts and scores, in NumPy."""
