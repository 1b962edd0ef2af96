"""The demo: trains a forecaster on flights, with the same jobs that a user submits.

    python -m cluster.demo          prepare, pretrain, adapt, fine-tune, evaluate, print the results
    python -m cluster.demo sweep    sweep Delta and the LoRA rank, from the demo's base model

Every step is a ``ray job submit`` on the local stack. Repeating the demo is safe: jobs recognise
finished work by its fingerprint and reuse it.
"""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from mlflow.tracking import MlflowClient

from cluster.local import default_home, up
from cluster.services import Stack
from mmtpp.core.errors import ClusterError, MmtppError
from mmtpp.evaluate.scores import metric_names

# Lines of a job's log that are printed; the whole log goes to a file.
JOB_LINES = re.compile(
    r"(INFO|WARNING|ERROR) mmtpp\.(?!sweep)\S*: |step \d+/\d+, |\d+ of \d+ parameters |^error: "
)
# Lines and table of the sweep itself, without the steps of its trials.
SWEEP_LINES = re.compile(r"INFO mmtpp\.sweep\S*: |(WARNING|ERROR) \S+: |^error: |^\|")


def submit(
    stack: Stack, title: str, entrypoint: list[str], *, printed: re.Pattern[str] = JOB_LINES
) -> dict:
    """Run one job through ``ray job submit`` and return the JSON object of its last line.

    Args:
        stack: Stack that runs the job.
        title: Heading that is printed first; the name of the log file is derived from it.
        entrypoint: Command of the job.
        printed: Pattern of the log lines to print, each from its match to its end.

    Raises:
        ClusterError: The job failed; the message ends with the end of its log.
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
            match = printed.search(line)
            if match:
                print(f"   {line[match.start() :].rstrip()}", flush=True)
    if process.returncode:
        tail = "\n".join(lines[-40:])
        raise ClusterError(f"the job failed: {title}\n{tail}", where=str(log))
    result = next(line for line in reversed(lines) if line.startswith("{"))
    print(f"   {result}\n   done in {time.monotonic() - started:.0f} s", flush=True)
    return json.loads(result)


def demo(stack: Stack) -> None:
    """Run the demo from raw events to tables of results."""
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
    base_result = submit(stack, "Evaluate the base", evaluate)
    adapter_result = submit(stack, "Evaluate the adapter", [*evaluate, *adapter])
    forecast_config = ["--config", "jobs/configs/demo_finetune.toml"]
    finetuned = submit(
        stack, "Fine-tune to forecast", ["python", "jobs/finetune.py", *forecast_config, *model]
    )
    forecaster = ["--set", f"model.path={finetuned['model_uri']}"]
    forecast_result = submit(
        stack,
        "Evaluate the forecasts",
        ["python", "jobs/evaluate.py", *forecast_config, *forecaster],
    )
    _print_likelihoods(base_result, adapter_result)
    _print_forecasts(forecast_result)
    minutes = (time.monotonic() - started) / 60
    print(f"\nMLflow         {runs_page(stack, adapter_result['run_id'])}")
    print(f"Ray dashboard  {stack.dashboard_uri}  (token in {stack.home / 'ray_token'})")
    print(f"adapter        {adapted['adapter_uri']}")
    print(f"forecaster     {finetuned['model_uri']}")
    print(f"{minutes:.1f} minutes. Next: make sweep, make ui, make down")


def sweep(stack: Stack) -> None:
    """Run six short trials from the demo's base model."""
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
        printed=SWEEP_LINES,
    )
    print(f"\nbest trial: {result['best']}\nits configuration: {result['best_uri']}")
    page = runs_page(stack, result["run_id"])
    print(f"MLflow, parent run and trials: {page}")
    print(f"figures of the sweep: {page}/{result['run_id']}/artifacts")


def runs_page(stack: Stack, run_id: str) -> str:
    """Address of MLflow's list of runs; its start page shows traces of language models."""
    experiment = MlflowClient(stack.mlflow_uri).get_run(run_id).info.experiment_id
    return f"{stack.mlflow_uri}/#/experiments/{experiment}/runs"


def _print_likelihoods(base_result: dict, adapter_result: dict) -> None:
    """Print the likelihoods of the base and the adapter next to the baselines."""
    base, adapter = base_result["metrics"], adapter_result["metrics"]
    baselines = base_result["baselines"]
    nll, nll_error = metric_names.EVENT_INTERVAL_NLL, metric_names.EVENT_INTERVAL_NLL_ERROR
    accuracy = metric_names.EVENT_TYPE_ACCURACY
    accuracy_error = metric_names.EVENT_TYPE_ACCURACY_ERROR
    most_frequent = baselines[metric_names.EVENT_TYPE_ACCURACY_MOST_FREQUENT]
    last = baselines[metric_names.EVENT_TYPE_ACCURACY_LAST]

    def measured(metrics: dict, name: str, error: str) -> str:
        return f"{metrics[name]:.3f} ± {metrics[error]:.3f}"

    rows = [
        ("most frequent type", "", f"{most_frequent:.3f}"),
        ("last type", "", f"{last:.3f}"),
        ("marginal of the intervals", f"{baselines[nll]:.3f}", ""),
        *(
            (name, measured(metrics, nll, nll_error), measured(metrics, accuracy, accuracy_error))
            for name, metrics in (("tiny base", base), ("tiny base + LoRA", adapter))
        ),
    ]
    print(f"\nHeld-out aircraft, September to December: {adapter_result['events']:,} events")
    print(f"{'':28}{'interval NLL':>16}{'next type':>16}")
    print(f"{'':28}{'(nats/event)':>16}{'(accuracy)':>16}")
    for name, left, right in rows:
        print(f"{name:28}{left:>16}{right:>16}")


def _print_forecasts(result: dict) -> None:
    """Print the metrics of the fine-tuned model's forecasts next to the baselines."""
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
    print(f"\nForecasts of events of the same months: {result['targets']:,} targets")
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
