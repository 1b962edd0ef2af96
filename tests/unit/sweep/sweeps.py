"""Parts of sweep files and rows of trials for tests."""

from typing import Any

from mmtpp.sweep.trial_row import Status, TrialRow

METRIC = "validation/loss_per_token"
INTERVAL_METRIC = "validation/interval_code_nll_nats_per_event"
HEAD = f"""
[sweep]
name = "s"
metric = "{METRIC}"
mode = "min"
"""


def build_row(rank: int, status: Status, number: int = 0, **fields: Any) -> TrialRow:
    """Build the row of a trial that searched ``lora.rank``, without metrics."""
    return TrialRow({"lora.rank": rank}, status, trial_id=f"t_{number}", metrics={}, **fields)
