"""The optimiser: one class for all rules of ``optimizer.name``, under any ZeRO stage."""
