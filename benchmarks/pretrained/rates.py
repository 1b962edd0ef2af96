"""The learning rates that were tried, and the best of each model."""

import json
from pathlib import Path
from typing import Any

from benchmarks.pretrained.trial import ADAPTED, RANDOM, TINY

RATES = Path(__file__).parent / "learning_rates.jsonl"
TRIED = {ADAPTED: (3e-4, 1e-3, 3e-3), RANDOM: (3e-4, 1e-3, 3e-3), TINY: (1e-3, 3e-3, 1e-2)}
"""Learning rates by model, the same number for each."""


def read_trials(path: Path) -> list[dict[str, Any]]:
    """Records of the trials of learning rates."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def read_rates(path: Path) -> dict[str, float]:
    """The learning rate of each model with the smallest likelihood loss of validation events.

    Raises:
        ValueError: A learning rate was not tried.
    """
    losses = {
        (trial["model"], trial["learning_rate"]): trial["metrics"]["event"]
        for trial in read_trials(path)
    }
    missing = [(model, rate) for model in TRIED for rate in TRIED[model]]
    missing = [key for key in missing if key not in losses]
    if missing:
        raise ValueError(
            f"{path} has no trial of {missing}: run python -m benchmarks.pretrained.learning_rates"
        )
    return {model: min(TRIED[model], key=lambda rate: losses[model, rate]) for model in TRIED}
