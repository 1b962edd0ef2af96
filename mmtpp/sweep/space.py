"""The sweep: search space, common configuration, and the values and settings of its trials."""

import itertools
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from mmtpp.config.affects import Affects, settings_that_affect
from mmtpp.config.fingerprint import fingerprint, run_fingerprint
from mmtpp.config.load import with_values
from mmtpp.config.schema import RunConfig
from mmtpp.sweep.sweep_settings import Choice, SweepSettings, Tie

Values = Mapping[str, object]
MAX_PROBES = 256  # combinations to check of a space that is not searched by a grid


@dataclass(frozen=True, slots=True)
class Sweep:
    """Settings to try, and how to judge trials.

    Attributes:
        settings: Search, metric, budget and scheduler.
        config: Configuration that all trials share.
        space: Values or range of each searched setting, by configuration path.
        tied: Settings that follow a searched one, by configuration path.
    """

    settings: SweepSettings
    config: RunConfig
    space: dict[str, Choice]
    tied: dict[str, Tie] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Unique name of the sweep: the same settings always give the same name."""
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
        # a fingerprint of a run leaves out how the run is scored
        judged = settings_that_affect(self.config, Affects.EVALUATION, Affects.FINETUNE)
        identity = {
            "space": {key: _plain(choice) for key, choice in self.space.items()},
            "tied": {key: tie.model_dump(mode="json") for key, tie in self.tied.items()},
            "sweep": self.settings.model_dump(mode="json", include=searching),
            "of": run_fingerprint(self.config),
            "store": self.config.store.uri,
            "judged": judged,
        }
        return f"{self.settings.name}-{fingerprint(identity)[:8]}"

    def grid(self) -> list[dict[str, object]]:
        """Values of every trial of a grid: all combinations."""
        lists = [_probe_values(choice) for choice in self.space.values()]
        return [
            dict(zip(self.space, combination, strict=True))
            for combination in itertools.product(*lists)
        ]

    def probes(self) -> list[dict[str, object]]:
        """Values of trials that are checked before the sweep starts.

        These are all trials of a grid. Other searches are checked with every listed value and both
        ends of every range, and with at most ``MAX_PROBES`` combinations of them.
        """
        lists = {key: _probe_values(choice) for key, choice in self.space.items()}
        if self.settings.searcher == "grid" or math.prod(map(len, lists.values())) <= MAX_PROBES:
            return self.grid()
        first = {key: values[0] for key, values in lists.items()}
        probes = [{**first, key: value} for key, values in lists.items() for value in values]
        rng = random.Random(0)
        return probes + [
            {key: rng.choice(values) for key, values in lists.items()} for _ in range(MAX_PROBES)
        ]

    @property
    def num_trials(self) -> int:
        """Number of trials of the whole sweep."""
        return self.settings.num_trials or math.prod(
            len(_probe_values(choice)) for choice in self.space.values()
        )

    def preview(self) -> dict[str, object]:
        """The trials of a grid; for other searches, the number of trials and the space."""
        if self.settings.searcher == "grid":
            return {"trials": [self.trial_settings(values) for values in self.grid()]}
        space = {key: _plain(choice) for key, choice in self.space.items()}
        return {"num_trials": self.settings.num_trials, "space": space}

    def trial_settings(self, values: Values) -> dict[str, object]:
        """Searched settings of a trial, and the settings that are tied to them."""
        return {
            **values,
            **{
                key: tie.follow(values[tie.to])
                for key, tie in self.tied.items()
                if tie.to in values
            },
        }

    def searched_values(self, settings: Mapping[str, object]) -> dict[str, object]:
        """Values of the searched settings among settings of a trial."""
        return {key: settings[key] for key in self.space if key in settings}

    def trial_config(self, values: Values) -> RunConfig:
        """Whole configuration of the first job of a trial."""
        changes: dict[str, object] = {}
        scheduler = self.settings.scheduler
        if scheduler.kind != "none":
            changes["training.validate_every"] = scheduler.every_steps
        if scheduler.kind == "pbt":
            # another trial may start from any checkpoint, perhaps much later: all are kept
            changes["training.checkpoint_every"] = scheduler.every_steps
            num_steps = self.config.training.num_steps
            changes["training.keep_checkpoints"] = 1 + num_steps // scheduler.every_steps
        return with_values(self.config, {**changes, **self.trial_settings(values)})


def _probe_values(choice: Choice) -> list[object]:
    """Values of a list, or the ends and the middle of a range."""
    return choice if isinstance(choice, list) else choice.probes()


def _plain(choice: Choice) -> object:
    return choice if isinstance(choice, list) else choice.model_dump(mode="json")
