"""What a sweep tries: settings by their configuration paths, so a typo fails before it starts."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mmtpp.config.fingerprint import fingerprint, run_fingerprint
from mmtpp.config.load import (
    config_from_tree,
    parse_assignments,
    read_toml,
    section_from_tree,
    with_values,
)
from mmtpp.config.schema import RunConfig
from mmtpp.core.errors import ConfigError
from tune.settings import (
    OF_VALIDATION,
    OF_WHOLE_EVENTS,
    TRAINING_JOBS,
    Choice,
    Domain,
    SweepSettings,
    Tie,
)

Values = Mapping[str, object]
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
    stage_two = "" if settings.jobs[0] == "finetune" else "finetune/"
    known = [name for name in known if name != stage_two + OF_WHOLE_EVENTS]
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
    for metric in settings.metric:
        shaping: tuple[str, ...] = ()
        if metric == OF_WHOLE_EVENTS:
            shaping = ("template.",)
        elif metric.endswith("_per_token"):  # a window's first tokens belong to no event
            shaping = ("compression.", "template.", "window.")
        changing = sorted(key for key in searched if key.startswith(shaping))
        if changing:
            raise ConfigError(
                f"sweep.metric = {metric}: {changing[0]} changes what the tokens are, so losses "
                "of different trials say nothing about which is better",
                setting="a metric of the same tokens, validation/interval_nll_nats_per_event",
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
