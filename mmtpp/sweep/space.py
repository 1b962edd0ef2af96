"""What a sweep tries: settings by their configuration paths, so a typo fails before it starts."""

import itertools
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from mmtpp.config.fingerprint import fingerprint, run_fingerprint
from mmtpp.config.load import with_values
from mmtpp.config.schema import RunConfig
from mmtpp.config.shapes import Shapes, settings_that_shape
from mmtpp.sweep.sweep_settings import Choice, SweepSettings, Tie

Values = Mapping[str, object]
PROBES = 256  # of a space that is searched otherwise than by a grid


@dataclass(frozen=True, slots=True)
class Sweep:
    """What to try, and how to judge it.

    Attributes:
        settings: how to search.
        config: what all trials share.
        space: configuration path -> its values or its range.
        tied: configuration path -> the searched setting it follows.
    """

    settings: SweepSettings
    config: RunConfig
    space: dict[str, Choice]
    tied: dict[str, Tie] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Of this sweep and no other: the same settings find the same sweep again."""
        searching = {
            "searcher",
            "num_trials",
            "seed",
            "jobs",
            "finetune",
            "metric",
            "mode",
            "scheduler",
        }
        # a trial's own identity leaves out how it is scored
        judged = settings_that_shape(self.config, Shapes.EVALUATION, Shapes.FINETUNE)
        of = {
            "space": {key: _plain(choice) for key, choice in self.space.items()},
            "tied": {key: tie.model_dump(mode="json") for key, tie in self.tied.items()},
            "sweep": self.settings.model_dump(mode="json", include=searching),
            "of": run_fingerprint(self.config),
            "store": self.config.store.uri,
            "judged": judged,
        }
        return f"{self.settings.name}-{fingerprint(of)[:8]}"

    def grid(self) -> list[dict[str, object]]:
        """Values of every trial of a grid: all combinations."""
        lists = [_probed(choice) for choice in self.space.values()]
        return [dict(zip(self.space, each, strict=True)) for each in itertools.product(*lists)]

    def probes(self) -> list[dict[str, object]]:
        """Values of trials that tell what others need and whether they may be: all of a grid; of
        other searchers each value and each end of a range at least once, and combinations of them,
        not all where those are many."""
        lists = {key: _probed(choice) for key, choice in self.space.items()}
        if self.settings.searcher == "grid" or math.prod(map(len, lists.values())) <= PROBES:
            return self.grid()
        first = {key: values[0] for key, values in lists.items()}
        found = [{**first, key: value} for key, values in lists.items() for value in values]
        drawn = random.Random(0)
        return found + [
            {key: drawn.choice(values) for key, values in lists.items()} for _ in range(PROBES)
        ]

    @property
    def num_trials(self) -> int:
        """How many there are to be."""
        return self.settings.num_trials or math.prod(
            len(_probed(choice)) for choice in self.space.values()
        )

    def plan(self) -> dict[str, object]:
        """What will be tried: the trials of a grid, or how many others from which space."""
        if self.settings.searcher == "grid":
            return {"trials": [self.settings_of(values) for values in self.grid()]}
        space = {key: _plain(choice) for key, choice in self.space.items()}
        return {"num_trials": self.settings.num_trials, "space": space}

    def settings_of(self, values: Values) -> dict[str, object]:
        """What makes a trial: searched settings, and those that are tied to them."""
        return {
            **values,
            **{
                key: tie.follow(values[tie.to])
                for key, tie in self.tied.items()
                if tie.to in values
            },
        }

    def trial_config(self, values: Values) -> RunConfig:
        """The whole configuration of one trial's first job."""
        changes: dict[str, object] = {}
        scheduler = self.settings.scheduler
        if scheduler.kind != "none":
            changes["training.validate_every"] = scheduler.every_steps
        if scheduler.kind == "pbt":  # others go on from any of them, and may be slow to start
            changes["training.checkpoint_every"] = scheduler.every_steps
            num_steps = self.config.training.num_steps
            changes["training.keep_checkpoints"] = 1 + num_steps // scheduler.every_steps
        return with_values(self.config, {**changes, **self.settings_of(values)})


def _probed(choice: Choice) -> list[object]:
    """A list itself; of a range its ends and what lies between."""
    return choice if isinstance(choice, list) else choice.probes()


def _plain(choice: Choice) -> object:
    return choice if isinstance(choice, list) else choice.model_dump(mode="json")
