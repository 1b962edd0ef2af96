"""The Python API of a notebook: sequences, compression and forecasts in one process, no cluster."""
