"""What there is to know of a data set before any GPU time is spent on it."""
