"""Training: the driver that plans and starts it, and the loop of every worker."""

import mmtpp.model  # noqa: F401  quiet before transformers is imported
