"""Summary at the end of a job: its result and the next commands."""

import shlex
from collections.abc import Mapping, Sequence
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


def next_commands(
    job: str, result: Mapping[str, object], config: RunConfig, argv: Sequence[str]
) -> list[str]:
    """Commands that use the result of a job, with the settings of this job."""
    same_arguments = _without_model(argv)
    if job == "prepare":
        return [
            f"mmtpp inspect {shlex.quote(config.store.uri)}",
            f"python jobs/pretrain.py {shlex.join(argv)}",
        ]
    if job == "stream":
        settings = cast("Mapping[str, object]", result["prepare_settings"])
        words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        return [f"python jobs/prepare.py {shlex.join(words)} --set store.uri=STORE"]
    if job in TRAINING_JOBS:
        if "adapter_uri" in result:
            model = {
                "model.path": config.model.path,
                "model.adapter": str(result["adapter_uri"]),
            }
        else:
            model = {"model.path": str(result["model_uri"])}
        needs_finetuning = job == "pretrain" and not config.is_trained_by_pretrain
        next_jobs = ["finetune", "evaluate"] if needs_finetuning else ["evaluate", "predict"]
        return [_command(name, same_arguments, model, config.run.name) for name in next_jobs]
    if job == "update":
        model = cast("Mapping[str, str]", result["model_settings"])
        server = ["--tracking-uri", config.tracking.uri] if config.tracking.uri else []
        rollback = shlex.join(["mmtpp", "rollback", config.update.model, *server])
        undo = [rollback] if result["promoted"] else []
        return [*undo, _command("evaluate", same_arguments, model, config.run.name)]
    if job == "prequential":
        return [f"open {result['results_uri']}/prequential.md (also in MLflow)"]
    if job == "combine":
        model = {"model.path": config.model.path, "model.adapter": config.model.adapter}
        mixture = {**model, "model.expert": str(result["expert_uri"])}
        named = {key: value for key, value in mixture.items() if value}
        return [
            _command(name, same_arguments, named, config.run.name)
            for name in ("evaluate", "predict")
        ]
    if job == "evaluate" and "report_uri" in result:
        return [f"open {result['report_uri']} (also among the run's artifacts in MLflow)"]
    return []


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
