"""The demo: raw flights to an adapter that forecasts, through the jobs a user would submit.

    python -m cluster.demo          upload, prepare, pretrain, adapt, fine-tune, evaluate, show it
    python -m cluster.demo sweep    Delta against LoRA rank, from the demo's base

Every step is a real ``ray job submit`` on the local stack. Repeating is safe: finished work is
found by its fingerprint and not done again.
"""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from mlflow.tracking import MlflowClient

from cluster.local import Stack, default_home, up
from mmtpp.core.errors import ClusterError, MmtppError

# What of a job's log is worth a line in the terminal; all of it is kept in a file.
OF_A_JOB = re.compile(
    r"(INFO|WARNING|ERROR) mmtpp\.(?!sweep)\S*: |step \d+/\d+, |\d+ of \d+ parameters |^error: "
)
# its own lines and its table, not the steps of all its trials
OF_A_SWEEP = re.compile(r"INFO mmtpp\.sweep\S*: |(WARNING|ERROR) \S+: |^error: |^\|")


def submit(
    stack: Stack, title: str, entrypoint: list[str], *, shown: re.Pattern[str] = OF_A_JOB
) -> dict:
    """Run one job through ``ray job submit`` and return the JSON object of its last line.

    Args:
        stack: to submit it to.
        title: said first; names the file of its log.
        entrypoint: its command.
        shown: lines of its log that are printed, from where it is found on.

    Raises:
        ClusterError: the job failed; the message ends with its log.
    """
    print(f"\n== {title}\n   ray job submit --working-dir . -- {' '.join(entrypoint)}", flush=True)
    log = stack.home / "logs" / f"job-{re.sub(r'[^a-z0-9]+', '-', title.lower())}.log"
    ray = Path(sys.executable).with_name("ray")
    command = [str(ray), "job", "submit", "--working-dir", ".", "--", *entrypoint]
    environment = {**os.environ, **stack.environment()}
    started, lines = time.monotonic(), []
    with (
        subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process,
        log.open("w") as file,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            file.write(line)
            lines.append(line.rstrip())
            match = shown.search(line)
            if match:
                print(f"   {line[match.start() :].rstrip()}", flush=True)
    if process.returncode:
        tail = "\n".join(lines[-40:])
        raise ClusterError(f"the job failed: {title}\n{tail}", where=str(log))
    result = next(line for line in reversed(lines) if line.startswith("{"))
    print(f"   {result}\n   done in {time.monotonic() - started:.0f} s", flush=True)
    return json.loads(result)


def demo(stack: Stack) -> None:
    """The main job, from raw events to a table of results."""
    started = time.monotonic()
    base_config = ["--config", "jobs/configs/demo.toml"]
    adapt_config = ["--config", "jobs/configs/demo_adapt.toml"]
    submit(stack, "Prepare the event store", ["python", "jobs/prepare.py", *base_config])
    base = submit(stack, "Train the tiny base", ["python", "jobs/pretrain.py", *base_config])
    model = ["--set", f"model.path={base['model_uri']}"]
    adapted = submit(
        stack, "Adapt it with LoRA", ["python", "jobs/pretrain.py", *adapt_config, *model]
    )
    adapter = ["--set", f"model.adapter={adapted['adapter_uri']}"]
    evaluate = ["python", "jobs/evaluate.py", *adapt_config, *model]
    of_base = submit(stack, "Evaluate the base", evaluate)
    of_adapter = submit(stack, "Evaluate the adapter", [*evaluate, *adapter])
    forecast_config = ["--config", "jobs/configs/demo_finetune.toml"]
    finetuned = submit(
        stack, "Fine-tune to forecast", ["python", "jobs/finetune.py", *forecast_config, *model]
    )
    forecaster = ["--set", f"model.path={finetuned['model_uri']}"]
    of_forecasts = submit(
        stack,
        "Evaluate the forecasts",
        ["python", "jobs/evaluate.py", *forecast_config, *forecaster],
    )
    _show(of_base, of_adapter)
    _show_forecasts(of_forecasts)
    minutes = (time.monotonic() - started) / 60
    print(f"\nMLflow         {_runs_page(stack, of_adapter['run_id'])}")
    print(f"Ray dashboard  {stack.dashboard_uri}  (token in {stack.home / 'ray_token'})")
    print(f"adapter        {adapted['adapter_uri']}")
    print(f"forecaster     {finetuned['model_uri']}")
    print(f"{minutes:.1f} minutes. Next: make sweep, make ui, make down")


def sweep(stack: Stack) -> None:
    """Six short trials from the demo's base."""
    base_config = ["--config", "jobs/configs/demo.toml"]
    submit(stack, "Prepare the event store", ["python", "jobs/prepare.py", *base_config])
    base = submit(stack, "Train the tiny base", ["python", "jobs/pretrain.py", *base_config])
    result = submit(
        stack,
        "Sweep Delta and LoRA rank",
        [
            "python",
            "tune/sweep.py",
            "--config",
            "tune/configs/delta_rank.toml",
            "--set",
            f"model.path={base['model_uri']}",
        ],
        shown=OF_A_SWEEP,
    )
    print(f"\nbest: {result['best']}\nas a configuration: {result['best_uri']}")
    page = _runs_page(stack, result["run_id"])
    print(f"MLflow, parent run and its trials: {page}")
    print(f"its figures: {page}/{result['run_id']}/artifacts")


def _runs_page(stack: Stack, run_id: str) -> str:
    """MLflow's list of runs; by itself it opens on pages for traces of language models."""
    experiment = MlflowClient(stack.mlflow_uri).get_run(run_id).info.experiment_id
    return f"{stack.mlflow_uri}/#/experiments/{experiment}/runs"


def _show(of_base: dict, of_adapter: dict) -> None:
    base, adapter, plain = of_base["metrics"], of_adapter["metrics"], of_base["baselines"]
    nll, accuracy = "interval_nll_nats_per_event", "type_accuracy"

    def measured(metrics: dict, name: str, error: str) -> str:
        return f"{metrics[name]:.3f} ± {metrics[error]:.3f}"

    nll_error, accuracy_error = "interval_nll_standard_error", "type_accuracy_standard_error"
    rows = [
        ("most frequent type", "", f"{plain['type_accuracy_most_frequent']:.3f}"),
        ("last type", "", f"{plain['type_accuracy_last']:.3f}"),
        ("marginal of the intervals", f"{plain[nll]:.3f}", ""),
        *(
            (name, measured(of, nll, nll_error), measured(of, accuracy, accuracy_error))
            for name, of in (("tiny base", base), ("tiny base + LoRA", adapter))
        ),
    ]
    print(f"\nHeld-out aircraft, September to December: {of_adapter['events']:,} events")
    print(f"{'':28}{'interval NLL':>16}{'next type':>16}")
    print(f"{'':28}{'(nats/event)':>16}{'(accuracy)':>16}")
    for name, left, right in rows:
        print(f"{name:28}{left:>16}{right:>16}")


def _show_forecasts(result: dict) -> None:
    """Forecasts of the fine-tuned model beside those of the baselines."""
    columns = {
        "time/nll_nats_per_event": "interval NLL",
        "time/mae_s": "MAE (min)",
        "time/rmse_s": "RMSE (min)",
        "time/coverage_90": "90 % covers",
        "type/accuracy": "next type",
    }
    metrics, baselines = result["metrics"], result["baselines"]
    names = sorted({key.partition("/")[0] for key in baselines if key.count("/") == 2})
    rows = {
        name.replace("_", " "): {key: baselines.get(f"{name}/{key}") for key in columns}
        for name in names
    }
    rows["fine-tuned"] = {key: metrics.get(key) for key in columns}
    print(f"\nForecasts of the same months' events: {result['targets']:,} targets")
    print(" " * 20 + "".join(f"{title:>14}" for title in columns.values()))
    for name, values in rows.items():
        cells = [
            "" if value is None else f"{value / 60 if key.endswith('_s') else value:.3f}"
            for key, value in values.items()
        ]
        print(f"{name:20}" + "".join(f"{cell:>14}" for cell in cells))


def main(argv: list[str]) -> int:
    """Run the demo or the sweep."""
    if argv not in ([], ["sweep"]):
        print(__doc__)
        return 2
    try:
        stack = up(default_home())
        sweep(stack) if argv else demo(stack)
    except MmtppError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
