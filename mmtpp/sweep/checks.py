"""What a sweep may not be: refused before anything starts."""

import difflib
from typing import TYPE_CHECKING

from mmtpp.config.load import with_values
from mmtpp.config.schema import RunConfig
from mmtpp.core.errors import ConfigError
from mmtpp.core.tasks import EVENT_TASKS, check_futures
from mmtpp.evaluate.metric_names import FORECAST_METRICS
from mmtpp.sweep.sweep_settings import (
    OF_VALIDATION,
    OF_WHOLE_EVENTS,
    TRAINING_JOBS,
    Domain,
    SweepSettings,
)

if TYPE_CHECKING:
    from mmtpp.sweep.space import Sweep

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
# with another value of one of these, trials are scored on other events
CHOOSE_EVENTS = (
    "evaluation.max_sequences",
    "evaluation.split",
    "evaluation.targets_delta",
    "store.uri",
    "training.validation_sequences",
    "window.time_from",
    "window.time_to",
)
OF_INTERVALS = "validation/interval_nll_nats_per_event"
# beside validations and forecasts; their names are not checked
OF_TRAINING = ("data/", "memory/", "model/", "speed/", "system/", "time/", "train/")
OF_EVALUATION = ("horizon/", "qa/", "test/")
OF_LIKELIHOODS = (
    "interval_nll_nats_per_event",
    "type_accuracy",
    "type_nll_nats_per_event",
    "text_nll_nats_per_event",
)


def check(sweep: "Sweep") -> None:
    """Check a sweep and its trials: all of a grid, and of other spaces what ``probes`` has.

    Raises:
        ConfigError: it could not run, or what it would compare cannot be compared.
    """
    _check_search(sweep)
    for metric in sweep.settings.metric:
        _check_metric(sweep, metric)
        _check_comparable(sweep, metric)
    for values in sweep.probes():
        _check_trial(sweep, sweep.trial_config(values))


def _check_search(sweep: "Sweep") -> None:
    """Searcher and scheduler take what is searched."""
    settings, kind = sweep.settings, sweep.settings.scheduler.kind
    ranges = {key: choice for key, choice in sweep.space.items() if isinstance(choice, Domain)}
    if settings.searcher == "grid" and ranges:
        raise ConfigError(
            f"space.{next(iter(ranges))} is a range, and sweep.searcher = grid tries lists only",
            setting="sweep.searcher: random or optuna",
        )
    both = [key for key, choice in ranges.items() if choice.log and choice.step]
    if settings.searcher == "optuna" and both:
        raise ConfigError(
            f"space.{both[0]} has log and step, and sweep.searcher = optuna takes one of them",
            setting=f"space.{both[0]}.step = 0 or log = false, or sweep.searcher = random",
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


def _check_metric(sweep: "Sweep", metric: str) -> None:
    """A typo would show when the first trial is over."""
    settings = sweep.settings
    prefixes = ["", *(f"{job}/" for job in settings.jobs[1:] if job in TRAINING_JOBS)]
    stage_two = "" if settings.jobs[0] == "finetune" else "finetune/"
    names = [
        f"{prefix}validation/{name}"
        for prefix in prefixes
        for name in OF_VALIDATION
        if (prefix, name) != (stage_two, OF_WHOLE_EVENTS.removeprefix("validation/"))
    ]
    families = [prefix + family for prefix in prefixes for family in OF_TRAINING]
    if metric.startswith("evaluate/"):
        if "evaluate" not in settings.jobs:
            raise ConfigError(
                f"sweep.metric = {metric}, and sweep.jobs = {list(settings.jobs)} do not evaluate"
            )
        names = [f"evaluate/{name}" for name in (*FORECAST_METRICS, *OF_LIKELIHOODS)]
        families = [f"evaluate/{family}" for family in OF_EVALUATION]
    name = metric.partition("/at_")[0]  # at some positions in the sequence
    if name not in names and not name.startswith(tuple(families)):
        near = difflib.get_close_matches(metric, names, n=3, cutoff=0.4) or names
        raise ConfigError(
            f"sweep.metric = {metric}: no such metric of sweep.jobs = {list(settings.jobs)}",
            setting=f"{', '.join(near)}, or one that begins with {', '.join(families)}",
        )


def _check_comparable(sweep: "Sweep", metric: str) -> None:
    """Trials must be judged by the same measure of the same events."""
    settings, searched = sweep.settings, sorted({*sweep.space, *sweep.tied})
    choosing = [key for key in searched if key in CHOOSE_EVENTS]
    if choosing:
        raise ConfigError(
            f"space.{choosing[0]}: trials would be scored on different events",
            setting=f"one {choosing[0]} for all trials",
        )
    shaping: tuple[str, ...] = ()
    if metric.endswith("_per_token"):  # a window's first tokens belong to no event
        shaping = ("compression.", "template.", "window.")
    elif metric == OF_WHOLE_EVENTS:
        shaping = ("template.",)
    elif metric.rpartition("/")[2] == OF_INTERVALS.rpartition("/")[2]:
        shaping = ("template.time_bytes",)  # fewer bytes are wider bins
    changing = [key for key in searched if key.startswith(shaping)] if shaping else []
    if changing:
        raise ConfigError(
            f"sweep.metric = {metric}: {changing[0]} changes what the tokens are, so losses of "
            "different trials say nothing about which is better",
            setting=f"{OF_INTERVALS}, of all tokens up to the interval's last, unless "
            "template.time_bytes is searched; evaluate/time/nll_nats_per_event, a density, then",
        )
    # stage 2 asks about every event, however the history before it is compressed
    keeping = [
        key
        for key in searched
        if key.startswith("compression.")
        and key not in ("compression.delta", "compression.run_encoding")
    ]
    by_delta = "compression.delta" in searched and sweep.config.compression.strategy not in (
        "temporal",
        "none",
    )
    if _is_of_stage_one(settings, metric) and (keeping or by_delta):
        raise ConfigError(
            f"sweep.metric = {metric} scores the events that compression keeps, and "
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


def _check_trial(sweep: "Sweep", config: RunConfig) -> None:
    settings, training = sweep.settings, config.training
    judged_by_validation = any("validation/" in each for each in settings.metric)
    if judged_by_validation and not training.validation_sequences:
        raise ConfigError(
            f"sweep.metric = {settings.metric[0]}, but training.validation_sequences = 0: "
            "no trial would report it"
        )
    first = {name: getattr(settings.scheduler, name) for name in ("every_steps", "grace_steps")}
    late = [name for name, steps in first.items() if steps >= training.num_steps]
    if settings.scheduler.kind != "none" and late:
        raise ConfigError(
            f"sweep.scheduler.{late[0]} = {first[late[0]]}: a trial of training.num_steps = "
            f"{training.num_steps} ends before the first decision"
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
    own = config
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
    for metric in settings.metric:
        _check_is_asked(settings, own, metric)
    of_futures = [each for each in settings.metric if each.startswith("evaluate/horizon/")]
    if of_futures and not config.evaluation.futures:
        raise ConfigError(
            "no trial would report a metric of futures",
            setting=f"sweep.metric = {of_futures[0]}; evaluation.futures = 0",
        )
    if "evaluate" in settings.jobs and (futures := config.evaluation.futures):
        check_futures(_asked(settings, own), setting=f"evaluation.futures = {futures}")


def _asked(settings: SweepSettings, config: RunConfig) -> tuple[str, ...]:
    """Tasks that the evaluated model of a trial is trained to answer."""
    return config.tasks.asked if "finetune" in settings.jobs else ()


def _check_is_asked(settings: SweepSettings, config: RunConfig, metric: str) -> None:
    """Forecasts are of what stage 2 was trained to answer."""
    job, _, rest = metric.partition("/")
    task, _, name = rest.partition("/")
    if job != "evaluate" or not name or task not in EVENT_TASKS:
        return
    asked = _asked(settings, config)
    missing = [
        each for each in ((task, "time") if task == "joint" else (task,)) if each not in asked
    ]
    if missing:
        raise ConfigError(
            f"sweep.metric = {metric}: forecasts of a model that is not trained to answer "
            f"{missing[0]}",
            setting=f"sweep.jobs = {list(settings.jobs)}, of which finetune trains that; "
            f"tasks.{missing[0]} = {getattr(config.tasks, missing[0])}",
        )
