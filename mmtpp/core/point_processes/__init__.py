"""Classical point processes, fitted by maximum likelihood to the times and types of sequences."""
