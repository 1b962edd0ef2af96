"""The method itself, in pure NumPy: events, time codes, templates, compression, windows, scores."""
