"""Base models of several families, extended to read and write events; vocabulary and adapters."""

from mmtpp.compat.transformers_hooks import quiet_libraries

quiet_libraries()
