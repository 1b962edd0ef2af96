"""Parts of sweep files for tests."""

METRIC = "validation/loss_per_token"
INTERVAL_METRIC = "validation/interval_code_nll_nats_per_event"
HEAD = f"""
[sweep]
name = "s"
metric = "{METRIC}"
mode = "min"
"""
