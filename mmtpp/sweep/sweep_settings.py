"""The tables of a sweep's file: how it searches, judges and ends, ranges, and ties."""

import math
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from mmtpp.config.schema import Section
from mmtpp.core.errors import ConfigError

TRAINING_JOBS = ("pretrain", "finetune")
OF_VALIDATION = (
    "loss_per_token",
    "time_loss_per_token",
    "type_loss_per_token",
    "text_loss_per_token",
    "control_loss_per_token",
    "events",
    "interval_nll_nats_per_event",
    "nll_nats_per_event",
    "type_accuracy",
)
OF_WHOLE_EVENTS = "validation/nll_nats_per_event"  # no answer of stage 2 is a whole event


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
        if self.step and self.is_whole and self.step != int(self.step):
            raise ValueError("step must be whole where low and high are")
        if self.step and not all(
            math.isclose(end / self.step, round(end / self.step)) for end in (self.low, self.high)
        ):
            raise ValueError("low and high must be multiples of step")
        return self

    @property
    def is_whole(self) -> bool:
        """Whether it holds whole numbers only."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def nearest(self, value: float) -> float:
        """The value of the range that is nearest."""
        step = self.step or (1 if self.is_whole else 0)
        inside = min(max(value, self.low), self.high)
        # ends are multiples of the step, so this stays between them
        found = round(inside / step) * step if step else inside
        return int(found) if self.is_whole else found

    def probes(self) -> list[Any]:
        """Both ends, what follows the lower one in a range of whole numbers, and the middle."""
        middle = math.sqrt(self.low * self.high) if self.log else (self.low + self.high) / 2
        second = self.low + (self.step or 1) if self.is_whole else middle
        return sorted({self.low, self.nearest(second), self.nearest(middle), self.high})


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
