"""Summary at the end of a job: its result and the next commands."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from mmtpp.config.fingerprint import TRAINING_JOBS
from mmtpp.config.schema import RunConfig
from mmtpp.core.times.durations import SECONDS, format_duration, format_running_time, suitable_unit

SHOWN_METRICS = 12
# starts of the names of the metrics that come first
_FIRST = (
    "update/",
    "time/nll",
    "time/mae",
    "time/rmse",
    "type/accuracy",
    "likelihood/interval_code_nll_nats",
    "likelihood/type_given_interval_accuracy",
    "validation/",
    "final/",
    "train/loss",
)


def as_summary(
    job: str, result: Mapping[str, object], config: RunConfig, argv: Sequence[str]
) -> str:
    """Format the summary of a job: URIs, headline metrics, next commands.

    Args:
        job: Name of the job, for example ``pretrain``.
        result: Result of the job, with ``seconds``.
        config: Configuration of the job.
        argv: Arguments of the job.
    """
    lines = [f"{job} finished after {format_running_time(cast('float', result['seconds']))}"]
    plain = {
        key: value
        for key, value in result.items()
        if isinstance(value, str | int) and key not in ("seconds", "run_id") and value != ""
    }
    lines += [
        f"  {key:24} {value:,}"
        if isinstance(value, int) and not isinstance(value, bool)
        else f"  {key:24} {value}"
        for key, value in plain.items()
    ]
    metrics = cast("Mapping[str, float] | None", result.get("metrics"))
    if metrics:
        names = sorted((name for name in metrics if "/at_" not in name), key=_order)
        lines += [f"  {name:50} {_value(name, metrics[name])}" for name in names[:SHOWN_METRICS]]
        if len(names) > SHOWN_METRICS:
            lines.append(f"  and {len(names) - SHOWN_METRICS} more metrics in MLflow")
    commands = next_commands(job, result, config, argv)
    if commands:
        lines += ["next:", *(f"  {command}" for command in commands)]
    return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class _FinishedJob:
    """A job that has finished.

    Attributes:
        name: Name of the job.
        result: Result of the job.
        config: Configuration of the job.
        argv: Arguments of the job.
    """

    name: str
    result: Mapping[str, object]
    config: RunConfig
    argv: Sequence[str]

    def commands(self, names: Sequence[str], model: Mapping[str, str]) -> list[str]:
        """The same arguments for other jobs, with a model."""
        arguments = _without_model(self.argv)
        return [_command(name, arguments, model, self.config.run.name) for name in names]


def next_commands(
    job: str, result: Mapping[str, object], config: RunConfig, argv: Sequence[str]
) -> list[str]:
    """Commands that use the result of a job, with the settings of this job."""
    if job not in _NEXT_COMMANDS:
        return []
    return _NEXT_COMMANDS[job](_FinishedJob(job, result, config, argv))


def _after_prepare(finished: _FinishedJob) -> list[str]:
    return [
        f"mmtpp inspect {shlex.quote(finished.config.store.uri)}",
        f"python jobs/pretrain.py {shlex.join(finished.argv)}",
    ]


def _after_stream(finished: _FinishedJob) -> list[str]:
    settings = cast("Mapping[str, object]", finished.result["prepare_settings"])
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    return [f"python jobs/prepare.py {shlex.join(words)} --set store.uri=STORE"]


def _after_training(finished: _FinishedJob) -> list[str]:
    result, config = finished.result, finished.config
    if "adapter_uri" in result:
        model = {"model.path": config.model.path, "model.adapter": str(result["adapter_uri"])}
    else:
        model = {"model.path": str(result["model_uri"])}
    needs_finetuning = finished.name == "pretrain" and not config.is_trained_by_pretrain
    next_jobs = ("finetune", "evaluate") if needs_finetuning else ("evaluate", "predict")
    return finished.commands(next_jobs, model)


def _after_update(finished: _FinishedJob) -> list[str]:
    result, config = finished.result, finished.config
    server = ["--tracking-uri", config.tracking.uri] if config.tracking.uri else []
    rollback = shlex.join(["mmtpp", "rollback", config.update.model, *server])
    undo = [rollback] if result["promoted"] else []
    model = cast("Mapping[str, str]", result["model_settings"])
    return [*undo, *finished.commands(["evaluate"], model)]


def _after_prequential(finished: _FinishedJob) -> list[str]:
    return [f"open {finished.result['results_uri']}/prequential.md (also in MLflow)"]


def _after_combine(finished: _FinishedJob) -> list[str]:
    model = finished.config.model
    mixture = {
        "model.path": model.path,
        "model.adapter": model.adapter,
        "model.expert": str(finished.result["expert_uri"]),
    }
    named = {key: value for key, value in mixture.items() if value}
    return finished.commands(("evaluate", "predict"), named)


def _after_evaluate(finished: _FinishedJob) -> list[str]:
    if "report_uri" not in finished.result:
        return []
    uri = finished.result["report_uri"]
    return [f"open {uri} (also among the run's artifacts in MLflow)"]


_NEXT_COMMANDS: dict[str, Callable[[_FinishedJob], list[str]]] = {
    **dict.fromkeys(TRAINING_JOBS, _after_training),
    "prepare": _after_prepare,
    "stream": _after_stream,
    "update": _after_update,
    "prequential": _after_prequential,
    "combine": _after_combine,
    "evaluate": _after_evaluate,
}


def _command(job: str, arguments: Sequence[str], model: Mapping[str, str], run_name: str) -> str:
    # another training with the same run name would be refused
    named = {"run.name": f"{run_name}-{job}"} if run_name and job == "finetune" else {}
    settings = [f"{key}={value}" for key, value in {**named, **model}.items()]
    options = [word for setting in settings for word in ("--set", setting)]
    return shlex.join(["python", f"jobs/{job}.py", *arguments, *options])


def _without_model(argv: Sequence[str]) -> list[str]:
    """Arguments without those that name the model or the run, which the next job replaces."""
    words = [part for word in argv for part in _split(word)]
    pairs = zip(words[::2], words[1::2], strict=True)
    replaced = ("model.path=", "model.adapter=", "model.expert=", "run.name=")
    kept = [(option, value) for option, value in pairs if not value.startswith(replaced)]
    return [word for pair in kept for word in pair]


def _split(word: str) -> list[str]:
    """Split ``--option=value`` into two words; drop the option that has no value."""
    if word == "--dry-run":
        return []
    is_joined = word.startswith(("--set=", "--config="))
    return list(word.split("=", 1)) if is_joined else [word]


def _order(name: str) -> tuple[int, str]:
    ranks = [rank for rank, start in enumerate(_FIRST) if name.startswith(start)]
    return (ranks[0] if ranks else len(_FIRST)), name


def _value(name: str, value: float) -> str:
    """Format a metric; a duration also in a readable unit: ``2.58 days (222700 s)``."""
    if not name.endswith("_s"):
        return f"{value:.5g}"
    exact = f"{value:.10g} s" if abs(value) >= 10**4 else f"{value:.5g} s"
    return exact if suitable_unit(value) == SECONDS else f"{format_duration(value)} ({exact})"
