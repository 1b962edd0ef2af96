"""Training: ``launch`` plans and starts it on the driver, ``loop`` is what every worker runs."""

import mmtpp.model  # noqa: F401  silences libraries before transformers is imported
