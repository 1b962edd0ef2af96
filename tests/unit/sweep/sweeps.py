"""Sweeps for tests, from a few lines of text."""

METRIC = "validation/loss_per_token"
OF_EVENTS = "validation/interval_nll_nats_per_event"
HEAD = f"""
[sweep]
name = "s"
metric = "{METRIC}"
mode = "min"
"""
