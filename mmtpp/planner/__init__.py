"""Memory and speed of a training, estimated before any machine is rented."""

from mmtpp.compat.transformers_hooks import quiet_libraries

quiet_libraries()
