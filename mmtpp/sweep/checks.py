"""Checks of a sweep before anything starts: can its trials run, and can they be compared?"""

import difflib
from collections.abc import Sequence

from mmtpp.config.data_settings import CompressionSection
from mmtpp.config.fingerprint import TRAINING_JOBS
from mmtpp.config.load import with_values
from mmtpp.config.model_settings import LoraSection
from mmtpp.config.schema import RunConfig
from mmtpp.config.training_settings import TaskWeights, TrainingSection
from mmtpp.core.errors import ConfigError
from mmtpp.core.model_kind import ModelKind
from mmtpp.core.representation.compression import RECENT_FULL
from mmtpp.core.representation.tasks import DENSITY_TASKS, EVENT_TASKS, check_futures
from mmtpp.core.training.training_metrics import (
    EXPERT_VALIDATION,
    LANGUAGE_MODEL_VALIDATION,
    VALIDATION_EVENT_NLL,
    VALIDATION_INTERVAL_NLL,
)
from mmtpp.evaluate.scores import metric_names, renamed_metrics
from mmtpp.evaluate.scores.metric_table import FORECAST_METRICS
from mmtpp.evaluate.scores.position_ranges import AT, POSITION_RANGES, at_position
from mmtpp.sweep.space import Sweep
from mmtpp.sweep.sweep_settings import Domain, Scheduler, SweepSettings

# settings that a population may change during a run; any other setting would change the samples or
# the shapes of the weights
POPULATION_SETTINGS = (
    "training.learning_rate",
    "training.weight_decay",
    "training.max_grad_norm",
    "training.final_lr_fraction",
    "training.loss_weights.",
    "tasks.",
    "lora.dropout",
)
# settings that choose the events on which trials are scored
EVENT_SETTINGS = (
    "evaluation.max_sequences",
    "evaluation.split",
    "evaluation.targets_delta",
    "store.uri",
    "training.validation_sequences",
    "window.time_from",
    "window.time_to",
)
# families of metrics whose names are not checked: the first word of the name
TRAINING_FAMILIES = ("data/", "memory/", "model/", "speed/", "system/", "time/", "train/")
EVALUATION_FAMILIES = ("data/", "horizon/", "qa/")


def check_sweep(sweep: Sweep) -> None:
    """Check a sweep and the trials that ``Sweep.probes`` returns.

    Raises:
        ConfigError: The sweep could not run, or its trials could not be compared.
    """
    _check_search(sweep)
    for metric in sweep.settings.metric:
        _check_metric(sweep, metric)
        _check_comparable(sweep, metric)
    for values in sweep.probes():
        _check_trial(sweep, sweep.trial_config(values))


def _check_search(sweep: Sweep) -> None:
    """Check that searcher and scheduler support the search space."""
    settings, kind = sweep.settings, sweep.settings.scheduler.kind
    ranges = {key: choice for key, choice in sweep.space.items() if isinstance(choice, Domain)}
    if settings.searcher == "grid" and ranges:
        raise ConfigError(
            f"space.{next(iter(ranges))} is a range, and sweep.searcher = grid tries lists only",
            setting="sweep.searcher = random or optuna",
        )
    log_steps = [key for key, choice in ranges.items() if choice.log and choice.step]
    if settings.searcher == "optuna" and log_steps:
        key = log_steps[0]
        raise ConfigError(
            f"space.{key} has log and step, and sweep.searcher = optuna supports one of them",
            setting=f"space.{key}.step = 0 or log = false, or sweep.searcher = random",
        )
    if kind == "pbt":
        fixed = [
            key for key in (*sweep.space, *sweep.tied) if not key.startswith(POPULATION_SETTINGS)
        ]
        if fixed:
            raise ConfigError(
                f"space.{fixed[0]}: scheduler.kind = pbt changes settings during a run, and "
                "this one would change the samples or the shape of the weights",
                setting=f"search only {', '.join(POPULATION_SETTINGS)}",
            )
        if 0 < settings.max_concurrent < settings.num_trials:
            raise ConfigError(
                "population-based training runs all members at once, but sweep.max_concurrent = "
                f"{settings.max_concurrent} is below sweep.num_trials = {settings.num_trials}"
            )


def _check_metric(sweep: Sweep, metric: str) -> None:
    """Check the name of a metric: otherwise a typo would show only after the first trial."""
    settings = sweep.settings
    if renamed := renamed_metrics.new_name(metric.removeprefix("evaluate/")):
        raise ConfigError(
            f"sweep.metric = {metric}: was renamed", setting=f"sweep.metric = evaluate/{renamed}"
        )
    prefixes = ["", *(f"{job}/" for job in settings.jobs[1:] if job in TRAINING_JOBS)]
    stage_two = "" if settings.jobs[0] == "finetune" else "finetune/"
    is_expert = sweep.config.model_kind == ModelKind.EXPERT
    names = [
        f"{prefix}{name}"
        for prefix in prefixes
        for name in (EXPERT_VALIDATION if is_expert else LANGUAGE_MODEL_VALIDATION)
        if (prefix, name) != (stage_two, VALIDATION_EVENT_NLL)
    ]
    families = [prefix + family for prefix in prefixes for family in TRAINING_FAMILIES]
    if metric.startswith("evaluate/"):
        if "evaluate" not in settings.jobs:
            raise ConfigError(
                f"sweep.metric = {metric}, but sweep.jobs = {list(settings.jobs)} do not evaluate"
            )
        names = [f"evaluate/{name}" for name in (*FORECAST_METRICS, *metric_names.LIKELIHOODS)]
        families = [f"evaluate/{family}" for family in EVALUATION_FAMILIES]
    name, at, position_range = metric.partition(AT)
    if at and name in names:
        _check_position_range(metric, position_range)
    elif name not in names and not name.startswith(tuple(families)):
        near = difflib.get_close_matches(metric, names, n=3, cutoff=0.4) or names
        raise ConfigError(
            f"sweep.metric = {metric}: sweep.jobs = {list(settings.jobs)} report no such metric",
            setting=f"sweep.metric = {', '.join(near)}, or a name that begins with "
            f"{', '.join(families)}",
        )


def _check_position_range(metric: str, position_range: str) -> None:
    """Check that a metric of an evaluation is reported for a range of positions."""
    name = metric.removesuffix(at_position("", position_range))
    if name.removeprefix("evaluate/") not in FORECAST_METRICS:
        raise ConfigError(
            f"sweep.metric = {metric}: this metric is not reported by position",
            setting=f"sweep.metric = {name}",
        )
    if position_range not in POSITION_RANGES:
        names = [at_position(name, known) for known in POSITION_RANGES]
        raise ConfigError(
            f"sweep.metric = {metric}: {position_range} is no range of positions",
            setting=f"sweep.metric = {', '.join(names)}",
        )


def _check_comparable(sweep: Sweep, metric: str) -> None:
    """Check that all trials are judged by the same measure on the same events."""
    searched = sorted({*sweep.space, *sweep.tied})
    event_settings = [key for key in searched if key in EVENT_SETTINGS]
    if event_settings:
        raise ConfigError(
            f"space.{event_settings[0]}: trials would be scored on different events",
            setting=f"one {event_settings[0]} for all trials",
        )
    _check_same_tokens(searched, metric)
    _check_same_kept_events(sweep, searched, metric)


def _check_same_tokens(searched: Sequence[str], metric: str) -> None:
    """Check that a metric does not depend on how a searched setting writes events as tokens.

    Args:
        searched: Searched and tied settings.
        metric: Name of the metric.
    """
    if metric.endswith("_per_token"):  # the first tokens of a window belong to no event
        token_settings = ("compression.", "template.", "window.")
    elif metric == VALIDATION_EVENT_NLL:
        token_settings = ("template.",)
    elif metric.rpartition("/")[2] == VALIDATION_INTERVAL_NLL.rpartition("/")[2]:
        token_settings = ("template.time_bytes",)  # fewer bytes are wider bins
    else:
        return
    changing_keys = [key for key in searched if key.startswith(token_settings)]
    if changing_keys:
        raise ConfigError(
            f"sweep.metric = {metric}: {changing_keys[0]} changes the tokens, so losses of "
            "different trials do not show which is better",
            setting=f"sweep.metric = {VALIDATION_INTERVAL_NLL}, which is the likelihood of "
            "intervals; if template.time_bytes is searched, "
            f"evaluate/{metric_names.TIME_NLL}, which is a density",
        )


def _check_same_kept_events(sweep: Sweep, searched: Sequence[str], metric: str) -> None:
    """Check that compression keeps the same events in all trials, if a metric scores only those.

    Stage 2 asks about every event, whatever the compression of its history.

    Args:
        sweep: Sweep with the common configuration.
        searched: Searched and tied settings.
        metric: Name of the metric.
    """
    strategy = sweep.config.compression.strategy
    without_effect = {"compression.run_encoding", "compression.older_fraction"}
    if strategy in ("temporal", "none", RECENT_FULL):
        without_effect.add("compression.delta")  # ``_check_delta`` checks evaluation.targets_delta
    keys = [key for key in searched if key.startswith("compression.") and key not in without_effect]
    if keys and _is_of_stage_one(sweep.settings, metric):
        raise ConfigError(
            f"sweep.metric = {metric} scores the events that compression keeps, and {keys[0]} "
            "changes which ones: trials would be scored on different events",
            cause="evaluation.targets_delta makes them the same for the Delta of temporal "
            f"compression only; compression.strategy = {strategy}",
            setting='sweep.jobs = ["finetune", "evaluate"], which asks about every event',
        )


def _is_of_stage_one(settings: SweepSettings, metric: str) -> bool:
    """Whether a metric scores a stage-1 model, which predicts only events kept by compression."""
    job, _, name = metric.partition("/")
    if job == "evaluate":
        return "finetune" not in settings.jobs
    return settings.jobs[0] == "pretrain" and job in ("validation", "train") and bool(name)


def _check_trial(sweep: Sweep, config: RunConfig) -> None:
    """Check the configuration of one trial against the settings of the sweep."""
    settings = sweep.settings
    if config.is_trained_by_pretrain and "finetune" in settings.jobs:
        raise ConfigError(
            "an expert and a model of soft tokens are trained by pretrain alone",
            setting=f"model.preset = {config.model.preset}, template.style = "
            f"{config.template.style}, sweep.jobs = {list(settings.jobs)}",
        )
    if config.model_kind == ModelKind.EXPERT:
        _check_expert_trial(settings)
        return
    is_judged_by_validation = any("validation/" in metric for metric in settings.metric)
    if is_judged_by_validation and not config.training.validation_sequences:
        raise ConfigError(
            f"sweep.metric = {settings.metric[0]}, but training.validation_sequences = 0: "
            "no trial would report it"
        )
    if settings.scheduler.kind != "none":
        _check_steps(settings.scheduler, config.training)
    if "compression.delta" in sweep.space:
        _check_delta(settings, config.compression, config.evaluation.targets_delta)
    last_config = config  # configuration of the last training
    if "finetune" in settings.jobs[1:]:
        last_config = with_values(config, settings.finetune)
        _check_adapter(config.lora, last_config.lora)
    answered = _answered_tasks(settings.jobs, last_config)
    for metric in settings.metric:
        _check_is_answered(settings.jobs, last_config.tasks, answered, metric)
    future_metrics = [name for name in settings.metric if name.startswith("evaluate/horizon/")]
    if future_metrics and not config.evaluation.num_futures:
        raise ConfigError(
            "no trial would report a metric of futures",
            setting=f"sweep.metric = {future_metrics[0]}; evaluation.num_futures = 0",
        )
    if "evaluate" in settings.jobs and (futures := config.evaluation.num_futures):
        check_futures(answered, setting=f"evaluation.num_futures = {futures}")


def _check_expert_trial(settings: SweepSettings) -> None:
    """Check a sweep of temporal experts."""
    if settings.scheduler.kind != "none":
        raise ConfigError(
            "schedulers stop trials by training.num_steps, which an expert does not have",
            cause="an expert trains in minutes and ends early by itself",
            setting=f"model.preset = expert, sweep.scheduler.kind = {settings.scheduler.kind}; "
            "set it to none",
        )


def _check_steps(scheduler: Scheduler, training: TrainingSection) -> None:
    """Check that a scheduler can compare trials while they run."""
    decisions = {name: getattr(scheduler, name) for name in ("every_steps", "grace_steps")}
    late = [name for name, steps in decisions.items() if steps >= training.num_steps]
    if late:
        raise ConfigError(
            f"sweep.scheduler.{late[0]} = {decisions[late[0]]}: a trial of training.num_steps = "
            f"{training.num_steps} ends before the first decision"
        )
    if training.max_flops:
        raise ConfigError(
            f"training.max_flops = {training.max_flops:g}: trials have different numbers of steps, "
            f"and sweep.scheduler.kind = {scheduler.kind} compares them at equal ones"
        )


def _check_delta(
    settings: SweepSettings, compression: CompressionSection, targets_delta: float
) -> None:
    """Check that trials with different Deltas are scored on the same events.

    Args:
        settings: Settings of the sweep.
        compression: Compression of a trial.
        targets_delta: Value of ``evaluation.targets_delta``.
    """
    if compression.strategy != "temporal":
        return
    delta = compression.delta
    if targets_delta < delta and any(_is_of_stage_one(settings, name) for name in settings.metric):
        raise ConfigError(
            f"evaluation.targets_delta = {targets_delta} is below compression.delta = {delta}: "
            "trials would be scored on different events; set it to the largest delta"
        )


def _check_adapter(first: LoraSection, second: LoraSection) -> None:
    """Check that a finetune keeps the rank and alpha of the adapter it starts from.

    Args:
        first: Adapter of stage 1.
        second: Adapter of the finetune.
    """
    if first.rank and (second.rank, second.alpha) != (first.rank, first.alpha):
        raise ConfigError(
            f"sweep.finetune sets lora.rank = {second.rank} and lora.alpha = {second.alpha}, but "
            f"starts from the adapter of stage 1 with {first.rank} and {first.alpha}"
        )


def _answered_tasks(jobs: Sequence[str], config: RunConfig) -> tuple[str, ...]:
    """Tasks that the evaluated model of a trial is trained to answer."""
    if config.is_trained_by_pretrain:
        return DENSITY_TASKS
    return config.tasks.asked if "finetune" in jobs else ()


def _check_is_answered(
    jobs: Sequence[str], tasks: TaskWeights, answered: tuple[str, ...], metric: str
) -> None:
    """Check that a trial trains the model to answer the task that a metric scores.

    Args:
        jobs: Jobs of a trial.
        tasks: Weights of the tasks.
        answered: Tasks that the model is trained to answer.
        metric: Name of the metric.
    """
    job, _, job_metric = metric.partition("/")
    task, _, name = job_metric.partition("/")
    if job != "evaluate" or not name or task not in EVENT_TASKS:
        return
    needed = (task, "time") if task == "joint" else (task,)
    missing = [needed_task for needed_task in needed if needed_task not in answered]
    if missing:
        raise ConfigError(
            f"sweep.metric = {metric}: the model is not trained to answer {missing[0]}",
            cause="only a finetune trains a model to answer tasks",
            setting=f"sweep.jobs = {list(jobs)}; tasks.{missing[0]} = {getattr(tasks, missing[0])}",
        )
