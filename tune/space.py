"""Search spaces: keys are configuration paths, so a typo fails before the cluster starts."""

import itertools
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmtpp.config.load import config_from_tree, parse_assignments, with_values
from mmtpp.config.schema import RunConfig
from mmtpp.core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Sweep:
    """What to try, and how to judge it.

    Attributes:
        name: of the parent run; children start with it.
        config: settings all trials share.
        grid: configuration path -> values; every combination is a trial.
        metric: reported at the end of training; the best trial has the ``mode`` of it.
        mode: ``min`` or ``max``.
        max_concurrent: trials at a time, fewer when resources are short.
    """

    name: str
    config: RunConfig
    grid: dict[str, list[object]]
    metric: str
    mode: str
    max_concurrent: int

    def trials(self) -> list[dict[str, object]]:
        """Settings of every trial."""
        keys = list(self.grid)
        return [
            dict(zip(keys, values, strict=True))
            for values in itertools.product(*self.grid.values())
        ]

    def trial_config(self, values: Mapping[str, object]) -> RunConfig:
        """The whole configuration of one trial."""
        return with_values(self.config, dict(values))


def load_sweep(path: Path, assignments: Sequence[str]) -> Sweep:
    """Read a sweep: a configuration file with two more tables, ``[sweep]`` and ``[space]``.

    Raises:
        ConfigError: unreadable, or any trial's configuration is wrong; checks them all.
    """
    try:
        tree: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError("the sweep file cannot be read", where=f"{path}: {error}") from error
    settings, space = tree.pop("sweep", {}), tree.pop("space", {})
    known = {"name", "metric", "mode", "max_concurrent"}
    faults = [f"sweep.{key}: no such key" for key in set(settings) - known]
    faults += [f"sweep.{key}: missing" for key in sorted(known - set(settings))]
    if settings.get("mode") not in ("min", "max"):
        faults.append(f"sweep.mode = {settings.get('mode')!r}: min or max")
    if not isinstance(settings.get("max_concurrent"), int) or settings["max_concurrent"] < 1:
        faults.append("sweep.max_concurrent: a positive number")
    faults += [
        f'space.{key}: a list of values, as in "{key}" = [1, 2]'
        for key, values in space.items()
        if not isinstance(values, list) or not values
    ]
    if not space:
        faults.append("space: nothing to search")
    parse_assignments(tree, assignments, faults)
    config = config_from_tree(tree, faults)
    sweep = Sweep(config=config, grid=space, **settings)
    for values in sweep.trials():
        _check_trial(sweep, sweep.trial_config(values))
    return sweep


def _check_trial(sweep: Sweep, config: RunConfig) -> None:
    if sweep.metric.startswith("validation/") and not config.training.validation_sequences:
        raise ConfigError(
            f"sweep.metric = {sweep.metric}, but training.validation_sequences = 0: "
            "no trial would report it"
        )
    if "compression.delta" in sweep.grid and config.compression.strategy == "temporal":
        delta, targets = config.compression.delta, config.evaluation.targets_delta
        if targets < delta:
            raise ConfigError(
                f"evaluation.targets_delta = {targets} is below compression.delta = {delta}: "
                "trials would be scored on different events; set it to the largest delta"
            )
