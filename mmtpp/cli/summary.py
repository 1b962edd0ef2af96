"""The end of a job for people: what came out of it, and what to type next."""

import shlex
from collections.abc import Mapping, Sequence
from typing import cast

from mmtpp.config.schema import RunConfig
from mmtpp.core.durations import SECONDS, format_duration, format_running_time, suitable_unit

SHOWN_METRICS = 12
# headline metrics before others, by how their names begin
_FIRST = (
    "time/nll",
    "time/mae",
    "time/rmse",
    "type/accuracy",
    "interval_nll",
    "type_accuracy",
    "validation/",
    "final/",
    "train/loss",
)


def as_summary(
    job: str, result: Mapping[str, object], config: RunConfig, argv: Sequence[str]
) -> str:
    """Some lines: places, headline metrics, next commands.

    Args:
        job: name of the entry point, ``pretrain``.
        result: of the job, with ``seconds``.
        config: of the job.
        argv: what it was called with.
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
        lines += [f"  {name:40} {_value(name, metrics[name])}" for name in names[:SHOWN_METRICS]]
        if len(names) > SHOWN_METRICS:
            lines.append(f"  and {len(names) - SHOWN_METRICS} more metrics, in MLflow")
    commands = next_commands(job, result, config, argv)
    if commands:
        lines += ["next:", *(f"  {command}" for command in commands)]
    return "\n".join(lines)


def next_commands(
    job: str, result: Mapping[str, object], config: RunConfig, argv: Sequence[str]
) -> list[str]:
    """What one would do with the result, with the settings of this job."""
    again = _without_model(argv)
    if job == "prepare":
        return [
            f"python -m mmtpp inspect {shlex.quote(config.store.uri)}",
            f"python jobs/pretrain.py {shlex.join(argv)}",
        ]
    if job in ("pretrain", "finetune"):
        if config.lora.rank:
            given = {"model.path": config.model.path, "model.adapter": str(result["adapter_uri"])}
        else:
            given = {"model.path": str(result["model_uri"])}
        after = ["finetune", "evaluate"] if job == "pretrain" else ["evaluate", "predict"]
        return [_command(name, again, given, config.run.name) for name in after]
    if job == "evaluate" and "report_uri" in result:
        return [f"open {result['report_uri']} (also among the run's artifacts in MLflow)"]
    return []


def _command(job: str, again: Sequence[str], given: Mapping[str, str], name: str) -> str:
    # another training under the same name would be refused
    own = {"run.name": f"{name}-{job}"} if name and job == "finetune" else {}
    settings = [f"{key}={value}" for key, value in {**own, **given}.items()]
    sets = [word for each in settings for word in ("--set", each)]
    return shlex.join(["python", f"jobs/{job}.py", *again, *sets])


def _without_model(argv: Sequence[str]) -> list[str]:
    """The arguments but for those that name the model and the run: another job has its own."""
    words = [part for word in argv for part in _split(word)]
    pairs = zip(words[::2], words[1::2], strict=True)
    own = ("model.path=", "model.adapter=", "run.name=")
    kept = [(option, value) for option, value in pairs if not value.startswith(own)]
    return [word for pair in kept for word in pair]


def _split(word: str) -> list[str]:
    """An option and its value, also where they are one word; no value, no word."""
    if word == "--dry-run":
        return []
    is_joined = word.startswith(("--set=", "--config="))
    return list(word.split("=", 1)) if is_joined else [word]


def _order(name: str) -> tuple[int, str]:
    ranks = [rank for rank, start in enumerate(_FIRST) if name.startswith(start)]
    return (ranks[0] if ranks else len(_FIRST)), name


def _value(name: str, value: float) -> str:
    """A metric; of a duration in seconds also in a unit that suits it: ``2.58 days (222700 s)``."""
    if not name.endswith("_s"):
        return f"{value:.5g}"
    exact = f"{value:.10g} s" if abs(value) >= 10**4 else f"{value:.5g} s"
    return exact if suitable_unit(value) == SECONDS else f"{format_duration(value)} ({exact})"
