"""The method itself, in pure numpy: events, time codes, templates, compression, windows, scores."""
