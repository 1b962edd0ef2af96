"""What a notebook wants: sequences, compression and forecasts, without a cluster."""
