"""Source files in, event store out: read, validate, tokenise, decode images (Ray Data)."""
