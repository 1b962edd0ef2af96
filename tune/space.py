"""What a sweep tries: settings by their configuration paths, so a typo fails before it starts."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from mmtpp.config.fingerprint import fingerprint, run_fingerprint
from mmtpp.config.load import (
    config_from_tree,
    parse_assignments,
    read_toml,
    section_from_tree,
    with_values,
)
from mmtpp.config.schema import RunConfig, Section
from mmtpp.core.errors import ConfigError

Values = Mapping[str, object]
TRAINING_JOBS = ("pretrain", "finetune")
OF_VALIDATION = (
    "loss_per_token",
    "time_loss_per_token",
    "type_loss_per_token",
    "text_loss_per_token",
    "control_loss_per_token",
    "events",
    "interval_nll_nats_per_event",
    "type_accuracy",
)
# what a population may change in a run: the rest would change its samples or its weights' shapes
CHANGEABLE = (
    "training.learning_rate",
    "training.weight_decay",
    "training.max_grad_norm",
    "training.final_lr_fraction",
    "training.loss_weights.",
    "tasks.",
    "lora.dropout",
)


class Scheduler(Section):
    """What happens to trials while they run."""

    kind: Literal["none", "asha", "pbt"] = "none"
    """``none``: all run to their end; ``asha``: those that fall behind are stopped; ``pbt``: those
    that fall behind go on from the weights of better ones, with changed settings."""
    every_steps: PositiveInt = 100
    """``asha`` and ``pbt`` decide after every so many steps; trials validate then."""
    grace_steps: NonNegativeInt = 0
    """``asha`` stops no trial before; 0 for ``every_steps``."""
    reduction_factor: Annotated[int, Field(ge=2)] = 3
    """``asha`` lets one of so many go on from a rung to the next."""
    quantile_fraction: Annotated[float, Field(gt=0, le=0.5)] = 0.25
    """``pbt`` replaces this share of the trials, the worst, by as many of the best."""


class SweepSettings(Section):
    """How a sweep searches, judges and ends: the ``[sweep]`` table."""

    name: str = Field(min_length=1, max_length=60, pattern=r"^[A-Za-z0-9._-]+$")
    """Of the parent run; children start with it."""
    jobs: Annotated[
        tuple[Literal["pretrain", "finetune", "evaluate"], ...], Field(strict=False, min_length=1)
    ] = ("pretrain",)
    """What a trial runs, one after the other, each from the model of the one before. Metrics of
    later ones carry their name: ``finetune/validation/...``, ``evaluate/time/rmse_s``. ``evaluate``
    scores the validation split."""
    finetune: dict[str, Any] = Field(default={})
    """Settings, by configuration path, of ``finetune`` where it comes second."""
    metric: Annotated[tuple[str, ...], Field(strict=False, min_length=1, max_length=2)]
    """What trials are judged by; two for a Pareto front, of which the first chooses the best."""
    mode: Annotated[tuple[Literal["min", "max"], ...], Field(strict=False, min_length=1)]
    """Which of each is better."""
    searcher: Literal["grid", "random", "optuna"] = "grid"
    """``grid``: all combinations; ``random``; ``optuna``: tree-structured Parzen estimators, for
    two metrics too."""
    num_trials: NonNegativeInt = 0
    """Of ``random`` and ``optuna``."""
    seed: NonNegativeInt = 0
    """Of the searcher; each trial has ``training.seed``."""
    max_concurrent: NonNegativeInt = 0
    """Trials at a time; 0 for as many as fit the cluster. Never more than fit, unless an autoscaler
    brings machines for so many."""
    max_hours: NonNegativeFloat = 0.0
    """The sweep stops after so many hours; 0 for no such limit."""
    max_gpu_hours: NonNegativeFloat = 0.0
    """The sweep stops when its workers have run so long in all; a worker counts as a GPU also where
    it is a CPU. 0 for no such limit."""
    max_machine_failures: NonNegativeInt = 3
    """How often a trial goes on elsewhere when the machine that drives it is lost."""
    scheduler: Scheduler = Scheduler()
    """What happens to trials while they run."""

    @model_validator(mode="before")
    @classmethod
    def _several(cls, tree: Any) -> Any:
        # one metric is written without brackets
        if isinstance(tree, dict):
            one = {
                key: (tree[key],) for key in ("metric", "mode") if isinstance(tree.get(key), str)
            }
            return {**tree, **one}
        return tree

    @model_validator(mode="after")
    def _fits_together(self) -> "SweepSettings":
        if len(self.metric) != len(self.mode):
            raise ValueError("metric and mode need equally many entries")
        if (self.searcher == "grid") != (self.num_trials == 0):
            raise ValueError("num_trials goes with searcher = random or optuna, which need it")
        if self.jobs[0] not in TRAINING_JOBS:
            raise ValueError("jobs must begin with pretrain or finetune")
        if len(set(self.jobs)) < len(self.jobs) or list(self.jobs) != sorted(
            self.jobs, key=["pretrain", "finetune", "evaluate"].index
        ):
            raise ValueError("jobs come once each, in the order pretrain, finetune, evaluate")
        if self.finetune and "finetune" not in self.jobs[1:]:
            raise ValueError("finetune holds settings of a finetune that follows pretrain")
        if self.scheduler.kind != "none" and not self.metric[0].startswith("validation/"):
            raise ValueError(
                f"scheduler.kind = {self.scheduler.kind} looks at validations while a trial runs: "
                "metric must begin with validation/"
            )
        if self.scheduler.kind == "pbt" and self.searcher != "random":
            raise ValueError("scheduler.kind = pbt starts a population: searcher must be random")
        return self


class Domain(Section):
    """A range of numbers to search, whole numbers when both ends are written so."""

    low: int | float
    """Smallest value."""
    high: int | float
    """Largest value."""
    log: bool = False
    """Search evenly in the logarithm."""
    step: int | float = 0
    """Only multiples of it; 0 for all."""

    @model_validator(mode="after")
    def _is_range(self) -> "Domain":
        if not self.low < self.high:
            raise ValueError("low must be below high")
        if self.log and self.low <= 0:
            raise ValueError("low must be above 0 where log = true")
        if self.step < 0:
            raise ValueError("step must not be negative")
        return self

    @property
    def is_whole(self) -> bool:
        """Whether it holds whole numbers only."""
        return isinstance(self.low, int) and isinstance(self.high, int)


Choice = list[Any] | Domain


class Tie(Section):
    """A setting that follows a searched one: as many ``times`` it, or such that both have the same
    ``product``."""

    to: str
    """The searched setting."""
    times: NonNegativeInt | NonNegativeFloat = 0
    """This setting over the searched one."""
    product: NonNegativeInt | NonNegativeFloat = 0
    """Of both."""

    @model_validator(mode="after")
    def _is_one(self) -> "Tie":
        if bool(self.times) == bool(self.product):
            raise ValueError("times or product, one of them and above 0")
        return self

    def follow(self, value: Any) -> int | float:
        """The setting where the searched one has this value; whole where that is and it can be.

        Raises:
            ConfigError: the searched one is no number above 0.
        """
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            raise ConfigError(f"tied: {self.to} = {value!r} is not a number above 0")
        found = self.times * value if self.times else self.product / value
        is_whole = isinstance(value, int) and found == int(found)
        return int(found) if is_whole else found


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
        shaping = {
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
        judged = self.config.model_dump(mode="json", include={"evaluation", "tasks"})
        of = {
            "space": {key: _plain(choice) for key, choice in self.space.items()},
            "tied": {key: tie.model_dump(mode="json") for key, tie in self.tied.items()},
            "sweep": self.settings.model_dump(mode="json", include=shaping),
            "of": run_fingerprint(self.config),
            "judged": judged,
        }
        return f"{self.settings.name}-{fingerprint(of)[:8]}"

    def grid(self) -> list[dict[str, object]]:
        """Settings of every trial of a grid; of other searchers, every combination of what is not a
        range, with each range's ends."""
        values = [
            choice if isinstance(choice, list) else [choice.low, choice.high]
            for choice in self.space.values()
        ]
        return [dict(zip(self.space, each, strict=True)) for each in itertools.product(*values)]

    def plan(self) -> dict[str, object]:
        """What will be tried: the trials of a grid, or how many others from which space."""
        if self.settings.searcher == "grid":
            return {"trials": [self.settings_of(values) for values in self.grid()]}
        space = {key: _plain(choice) for key, choice in self.space.items()}
        return {"num_trials": self.settings.num_trials, "space": space}

    def settings_of(self, values: Values) -> dict[str, object]:
        """What makes a trial: searched settings, and those that are tied to them."""
        return {**values, **{key: tie.follow(values[tie.to]) for key, tie in self.tied.items()
                             if tie.to in values}}  # fmt: skip

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


def load_sweep(path: Path, assignments: Sequence[str]) -> Sweep:
    """Read a sweep: a configuration file with ``[sweep]``, ``[space]`` and perhaps ``[tied]``.

    In ``[space]`` a configuration path has a list of values, or a range, as in
    ``"training.learning_rate" = {low = 1e-4, high = 1e-2, log = true}``; in ``[tied]`` a path
    follows one of those, as in ``"lora.alpha" = {to = "lora.rank", times = 4}``.

    Args:
        path: of the file.
        assignments: ``section.key=value``, of these tables too.

    Raises:
        ConfigError: unreadable, or some trial's configuration would be wrong.
    """
    tree = read_toml(path)
    faults: list[str] = []
    parse_assignments(tree, assignments, faults)
    settings = section_from_tree(SweepSettings, tree.pop("sweep", {}), faults, prefix="sweep.")
    space: dict[str, Choice] = {}
    for key, choice in _leaves(tree.pop("space", {}), ""):
        read = _choice(key, choice, faults)
        if read is not None:
            space[key] = read
    tied: dict[str, Tie] = {}
    for key, written in _leaves(tree.pop("tied", {}), ""):
        tie = section_from_tree(Tie, written, faults, prefix=f"tied.{key}.")
        if tie is not None:
            tied[key] = tie
            if tie.to not in space or key in space:
                faults.append(f"tied.{key}: ties a setting that is not searched to one that is")
    if not space and not faults:
        faults.append("space: nothing to search")
    config = config_from_tree(tree, faults)
    assert settings is not None  # its faults were raised
    sweep = Sweep(settings, config, space, tied)
    _check(sweep)
    return sweep


def _leaves(tree: object, prefix: str) -> Iterator[tuple[str, object]]:
    """``a.b = [1]`` and ``"a.b" = [1]`` are the same."""
    if isinstance(tree, dict) and not {"low", "high", "to"} & set(tree):
        for key, value in tree.items():
            yield from _leaves(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, tree


def _choice(key: str, choice: object, faults: list[str]) -> Choice | None:
    if isinstance(choice, dict):
        return section_from_tree(Domain, choice, faults, prefix=f"space.{key}.")
    if not isinstance(choice, list) or not choice:
        faults.append(
            f"space.{key} = {choice!r}: a list of values, [1, 2], or {{low = 1, high = 9}}"
        )
        return None
    if any(choice.count(value) > 1 for value in choice):
        faults.append(f"space.{key} = {choice!r}: a value comes twice")
        return None
    return choice


def _plain(choice: Choice) -> object:
    return choice if isinstance(choice, list) else choice.model_dump(mode="json")


def _check(sweep: Sweep) -> None:
    """Check every trial of a grid, and the corners of other spaces."""
    settings, kind = sweep.settings, sweep.settings.scheduler.kind
    if settings.searcher == "grid":
        ranges = [key for key, choice in sweep.space.items() if isinstance(choice, Domain)]
        if ranges:
            raise ConfigError(
                f"space.{ranges[0]} is a range, and sweep.searcher = grid tries lists only",
                setting="sweep.searcher: random or optuna",
            )
    if kind == "pbt":
        fixed = [key for key in (*sweep.space, *sweep.tied) if not key.startswith(CHANGEABLE)]
        if fixed:
            raise ConfigError(
                f"space.{fixed[0]}: scheduler.kind = pbt changes settings of a run that goes on, "
                "and this one would change its samples or the shape of its weights",
                setting=f"only {', '.join(CHANGEABLE)}",
            )
        if 0 < settings.max_concurrent < settings.num_trials:
            raise ConfigError(
                f"sweep.max_concurrent = {settings.max_concurrent} is below sweep.num_trials = "
                f"{settings.num_trials}: members of a population are trained at the same time"
            )
    _check_metrics(settings)
    _check_comparable(sweep)
    for values in sweep.grid():
        _check_trial(sweep, sweep.trial_config(values))


def _check_metrics(settings: SweepSettings) -> None:
    """A typo would show when the first trial is over."""
    prefixes = ["", *(f"{job}/" for job in settings.jobs[1:] if job in TRAINING_JOBS)]
    known = [f"{prefix}validation/{name}" for prefix in prefixes for name in OF_VALIDATION]
    for metric in settings.metric:
        if "validation/" in metric and metric not in known:
            raise ConfigError(
                f"sweep.metric = {metric}: no such metric", setting=f"one of {', '.join(known)}"
            )
        if metric.startswith("evaluate/") and "evaluate" not in settings.jobs:
            raise ConfigError(
                f"sweep.metric = {metric}, and sweep.jobs = {list(settings.jobs)} do not evaluate"
            )


def _check_comparable(sweep: Sweep) -> None:
    """Trials must be judged by the same measure of the same events."""
    settings, searched = sweep.settings, {*sweep.space, *sweep.tied}
    if "evaluation.targets_delta" in searched:
        raise ConfigError(
            "space.evaluation.targets_delta: trials would be scored on different events",
            setting="one evaluation.targets_delta for all trials",
        )
    per_token = [name for name in settings.metric if name.endswith("_per_token")]
    changing = sorted(key for key in searched if key.startswith(("compression.", "template.")))
    if per_token and changing:
        raise ConfigError(
            f"sweep.metric = {per_token[0]}: {changing[0]} changes what the tokens are, so losses "
            "a token of different trials say nothing about which is better",
            setting="a metric of events, validation/interval_nll_nats_per_event",
        )
    # stage 2 asks about every event, however the history before it is compressed
    keeping = sorted(
        key
        for key in searched
        if key.startswith("compression.")
        and key not in ("compression.delta", "compression.run_encoding")
    )
    by_delta = "compression.delta" in searched and sweep.config.compression.strategy not in (
        "temporal",
        "none",
    )
    judging = [name for name in settings.metric if _is_of_stage_one(settings, name)]
    if judging and (keeping or by_delta):
        raise ConfigError(
            f"sweep.metric = {judging[0]} scores the events that compression keeps, and "
            f"{keeping[0] if keeping else 'compression.delta'} changes which ones: trials would be "
            "scored on different events",
            cause="evaluation.targets_delta makes them the same for the Delta of temporal "
            f"compression only; compression.strategy = {sweep.config.compression.strategy}",
            setting='sweep.jobs = ["finetune", "evaluate"], which asks about every event',
        )


def _is_of_stage_one(settings: SweepSettings, metric: str) -> bool:
    """Whether a metric scores predictions of kept events, in a stage-1 model."""
    job, _, rest = metric.partition("/")
    if job == "evaluate":
        return "finetune" not in settings.jobs
    return settings.jobs[0] == "pretrain" and job in ("validation", "train") and bool(rest)


def _check_trial(sweep: Sweep, config: RunConfig) -> None:
    settings, training = sweep.settings, config.training
    judged_by_validation = any("validation/" in each for each in settings.metric)
    if judged_by_validation and not training.validation_sequences:
        raise ConfigError(
            f"sweep.metric = {settings.metric[0]}, but training.validation_sequences = 0: "
            "no trial would report it"
        )
    if settings.scheduler.kind != "none" and training.num_steps <= settings.scheduler.every_steps:
        raise ConfigError(
            f"sweep.scheduler.every_steps = {settings.scheduler.every_steps}: a trial of "
            f"training.num_steps = {training.num_steps} ends before the first decision"
        )
    if settings.scheduler.kind != "none" and training.max_flops:
        raise ConfigError(
            f"training.max_flops = {training.max_flops:g}: trials have different numbers of steps, "
            f"and sweep.scheduler.kind = {settings.scheduler.kind} compares them at equal ones"
        )
    by_delta = config.compression.strategy == "temporal" and "compression.delta" in sweep.space
    if by_delta and any(_is_of_stage_one(settings, each) for each in settings.metric):
        delta, targets = config.compression.delta, config.evaluation.targets_delta
        if targets < delta:
            raise ConfigError(
                f"evaluation.targets_delta = {targets} is below compression.delta = {delta}: "
                "trials would be scored on different events; set it to the largest delta"
            )
    if "finetune" in settings.jobs[1:]:
        own = with_values(config, settings.finetune)
        if config.lora.rank and (own.lora.rank, own.lora.alpha) != (
            config.lora.rank,
            config.lora.alpha,
        ):
            raise ConfigError(
                f"sweep.finetune: goes on from stage 1's adapter, of lora.rank = "
                f"{config.lora.rank} and lora.alpha = {config.lora.alpha}, and asks for "
                f"{own.lora.rank} and {own.lora.alpha}"
            )
