"""The families of base models: one file a family, and the interface that they share."""
