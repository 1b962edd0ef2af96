"""The past of a sequence as numbers: what the temporal expert reads."""
