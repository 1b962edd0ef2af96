"""Encode raw event files into an event store: read, validate, tokenise, decode images."""
