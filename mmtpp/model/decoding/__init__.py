"""Decoding on a cached history: texts, and futures event by event."""
