"""Memory and speed of a training, estimated before any machine is rented."""
