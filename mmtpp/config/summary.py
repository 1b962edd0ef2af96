"""The end of a job for people: what came out of it, and what to type next."""

import shlex
from collections.abc import Mapping, Sequence
from typing import cast

from mmtpp.config.schema import RunConfig

SHOWN_METRICS = 12
# headline metrics before others, by how their names begin
_FIRST = ("time/nll", "time/mae", "time/rmse", "type/accuracy", "interval_nll", "type_accuracy",
          "validation/", "final/", "train/loss")  # fmt: skip


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
    lines = [f"{job} finished after {_duration(result['seconds'])}"]
    plain = {
        key: value
        for key, value in result.items()
        if isinstance(value, str | int) and key not in ("seconds", "run_id") and value != ""
    }
    lines += [f"  {key:24} {value:,}" if isinstance(value, int) and not isinstance(value, bool)
              else f"  {key:24} {value}" for key, value in plain.items()]  # fmt: skip
    metrics = cast("Mapping[str, float] | None", result.get("metrics"))
    if metrics:
        names = sorted((name for name in metrics if "/at_" not in name), key=_order)
        lines += [f"  {name:40} {metrics[name]:.5g}" for name in names[:SHOWN_METRICS]]
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
    again = shlex.join(_without_model(argv))
    if job == "prepare":
        return [f"python -m mmtpp inspect {shlex.quote(config.store.uri)}",
                f"python jobs/pretrain.py {shlex.join(argv)}"]  # fmt: skip
    if job in ("pretrain", "finetune"):
        out = str(result["adapter_uri"])
        if config.lora.rank:
            given = {"model.path": config.model.path, "model.adapter": out}
        else:
            given = {"model.path": out}
        model = " ".join(f"--set {key}={shlex.quote(value)}" for key, value in given.items())
        after = ["finetune", "evaluate"] if job == "pretrain" else ["evaluate", "predict"]
        return [f"python jobs/{name}.py {again} {model}".replace("  ", " ") for name in after]
    if job == "evaluate" and "report_uri" in result:
        return [f"open {result['report_uri']} (also among the run's artifacts in MLflow)"]
    return []


def _without_model(argv: Sequence[str]) -> list[str]:
    """The arguments but for those that name the model and the run: another job has its own."""
    kept: list[str] = []
    place = 0
    while place < len(argv):
        pair = list(argv[place : place + 2])
        width = 2 if argv[place] in ("--set", "--config") else 1
        own = ("model.path=", "model.adapter=", "run.name=")
        if not (width == 2 and pair[-1].startswith(own)):
            kept += argv[place : place + width]
        place += width
    return kept


def _order(name: str) -> tuple[int, str]:
    ranks = [rank for rank, start in enumerate(_FIRST) if name.startswith(start)]
    return (ranks[0] if ranks else len(_FIRST)), name


def _duration(seconds: object) -> str:
    assert isinstance(seconds, int | float)
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [f"{hours} h"] * (hours > 0) + [f"{minutes} min"] * (hours + minutes > 0)
    return " ".join([*parts, f"{rest} s"] if not hours else parts)
