"""Settings of a sweep's file: search, metric, budget, scheduler, ranges and tied settings."""

import math
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from mmtpp.config.fingerprint import TRAINING_JOBS
from mmtpp.config.schema import Section
from mmtpp.core.errors import ConfigError

Mode = Literal["min", "max"]


class Scheduler(Section):
    """Scheduler that stops or changes trials while they run."""

    kind: Literal["none", "asha", "pbt"] = "none"
    """Scheduler. ``none``: all trials run to their end; ``asha``: trials that fall behind stop;
    ``pbt``: trials that fall behind continue from the weights of better ones, with changed
    settings."""
    every_steps: PositiveInt = 100
    """Steps between two decisions of ``asha`` or ``pbt``; trials validate at these steps."""
    grace_steps: NonNegativeInt = 0
    """Number of steps before ``asha`` may stop a trial; 0 means ``every_steps``."""
    reduction_factor: Annotated[int, Field(ge=2)] = 3
    """Divisor of ``asha``: one trial out of this number continues from a rung to the next."""
    quantile_fraction: Annotated[float, Field(gt=0, le=0.5)] = 0.25
    """Fraction of the trials: ``pbt`` replaces the worst ones by the same number of the best."""


class SweepSettings(Section):
    """The ``[sweep]`` table: how to search, judge and end."""

    name: str = Field(min_length=1, max_length=60, pattern=r"^[A-Za-z0-9._-]+$")
    """Name of the sweep's run; the names of the trials' runs begin with it."""
    jobs: Annotated[
        tuple[Literal["pretrain", "finetune", "evaluate"], ...], Field(strict=False, min_length=1)
    ] = ("pretrain",)
    """Jobs of a trial, in order; a later job starts from the model of the job before. Metrics of
    later jobs begin with the name of the job, as in ``finetune/validation/...`` and
    ``evaluate/time/rmse_s``. ``evaluate`` scores the validation split."""
    finetune: dict[str, Any] = Field(default={})
    """Settings, by configuration path, of a ``finetune`` that follows ``pretrain``."""
    metric: Annotated[tuple[str, ...], Field(strict=False, min_length=1, max_length=2)]
    """Metric that judges trials; two metrics give a Pareto front, and the first one chooses the
    best trial."""
    mode: Annotated[tuple[Mode, ...], Field(strict=False, min_length=1)]
    """Whether the smallest (``min``) or the largest (``max``) value is best, for each metric."""
    searcher: Literal["grid", "random", "optuna"] = "grid"
    """Search. ``grid``: all combinations; ``random``: values drawn at random; ``optuna``:
    tree-structured Parzen estimators, also for two metrics."""
    num_trials: NonNegativeInt = 0
    """Number of trials of ``random`` and ``optuna``; 0 for ``grid``."""
    seed: NonNegativeInt = 0
    """Seed of the search; the seed of a trial is ``training.seed``."""
    max_concurrent: NonNegativeInt = 0
    """Maximum number of concurrent trials; 0 means all that fit the cluster. More trials than fit
    run only where an autoscaler can launch machines for them."""
    max_hours: NonNegativeFloat = 0.0
    """Hours after which the sweep stops; 0 means no limit."""
    max_gpu_hours: NonNegativeFloat = 0.0
    """Total hours of all workers after which the sweep stops; a worker on a CPU counts as one GPU.
    0 means no limit."""
    max_machine_failures: NonNegativeInt = 3
    """Maximum number of times a trial resumes elsewhere after the machine of its driver is lost."""
    scheduler: Scheduler = Scheduler()
    """Scheduler that stops or changes trials while they run."""

    @model_validator(mode="before")
    @classmethod
    def _accept_one_metric(cls, tree: Any) -> Any:
        # a single metric may be written without brackets
        if isinstance(tree, dict):
            keys = [key for key in ("metric", "mode") if isinstance(tree.get(key), str)]
            return {**tree, **{key: (tree[key],) for key in keys}}
        return tree

    @model_validator(mode="after")
    def _fits_together(self) -> "SweepSettings":
        if len(self.metric) != len(self.mode):
            raise ValueError("metric and mode must have the same number of entries")
        if (self.searcher == "grid") != (self.num_trials == 0):
            raise ValueError(
                "num_trials is required with searcher = random or optuna, and must be 0 with grid"
            )
        if self.jobs[0] not in TRAINING_JOBS:
            raise ValueError("jobs must begin with pretrain or finetune")
        if len(set(self.jobs)) < len(self.jobs) or list(self.jobs) != sorted(
            self.jobs, key=[*TRAINING_JOBS, "evaluate"].index
        ):
            raise ValueError(
                "jobs must be in the order pretrain, finetune, evaluate, each at most once"
            )
        if self.finetune and "finetune" not in self.jobs[1:]:
            raise ValueError("finetune has settings, but no finetune follows pretrain in jobs")
        if self.scheduler.kind != "none" and not self.metric[0].startswith("validation/"):
            raise ValueError(
                f"scheduler.kind = {self.scheduler.kind} compares validations while trials run: "
                "metric must begin with validation/"
            )
        if self.scheduler.kind == "pbt" and self.searcher != "random":
            raise ValueError("scheduler.kind = pbt starts a population: searcher must be random")
        return self


class Domain(Section):
    """A range of numbers to search; whole numbers if both ends are whole numbers."""

    low: int | float
    """Smallest value."""
    high: int | float
    """Largest value."""
    log: bool = False
    """Whether values are drawn evenly in their logarithm."""
    step: int | float = 0
    """Step of the values, which are multiples of it; 0 means all values."""

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
        """Whether the range has only whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def nearest(self, value: float) -> float:
        """The value of the range that is nearest to ``value``."""
        step = self.step or (1 if self.is_whole else 0)
        inside = min(max(value, self.low), self.high)
        # both ends are multiples of the step, so the result stays between them
        nearest = round(inside / step) * step if step else inside
        return int(nearest) if self.is_whole else nearest

    def probes(self) -> list[Any]:
        """Both ends, the middle and, in a range of whole numbers, the value after the lower end."""
        middle = math.sqrt(self.low * self.high) if self.log else (self.low + self.high) / 2
        second = self.low + (self.step or 1) if self.is_whole else middle
        return sorted({self.low, self.nearest(second), self.nearest(middle), self.high})


Choice = list[Any] | Domain


class Tie(Section):
    """A setting that follows a searched one: ``times`` the searched setting, or such that the
    product of both is ``product``."""

    to: str
    """The searched setting."""
    times: NonNegativeInt | NonNegativeFloat = 0
    """Ratio of this setting to the searched one."""
    product: NonNegativeInt | NonNegativeFloat = 0
    """Product of both settings."""

    @model_validator(mode="after")
    def _has_one_rule(self) -> "Tie":
        if bool(self.times) == bool(self.product):
            raise ValueError("set either times or product, above 0")
        return self

    def follow(self, value: Any) -> int | float:
        """The tied setting for a value of the searched one, as a whole number if possible.

        Raises:
            ConfigError: The searched setting is not a number above 0.
        """
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            raise ConfigError(f"tied: {self.to} = {value!r} is not a number above 0")
        tied = self.times * value if self.times else self.product / value
        is_whole = isinstance(value, int) and tied == int(tied)
        return int(tied) if is_whole else tied
