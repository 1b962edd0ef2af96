"""Training: ``launch`` plans and starts it on the driver.

Every worker of a language model runs ``loop``, and every worker of a temporal expert
``expert_loop``.
"""

import mmtpp.model  # noqa: F401  silences libraries before transformers is imported
