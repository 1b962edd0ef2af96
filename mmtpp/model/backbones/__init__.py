"""The families of base models: one file per family, and the interface that they share."""
