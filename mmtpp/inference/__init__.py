"""A loaded model and the rows that it reads, for evaluation, prediction and the Python API."""
