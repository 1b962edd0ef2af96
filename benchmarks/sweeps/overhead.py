"""The overhead of Ray Tune over the training that it runs.

    make bench-sweep        about a quarter of an hour

The same training runs alternately alone and as the only trial of a sweep. The benchmark compares
the time after start-up, from the first steps to the end of the MLflow run, and reports the total
time as well. Needs MMTPP_TEST_DATA for the danmaku. Writes ``overhead.md`` next to this file; fails
above ``MAX_RATIO``.
"""

import os

os.environ.setdefault("RAY_AUTH_MODE", "token")  # Ray reads it on import

import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from mlflow.tracking import MlflowClient

from benchmarks.measure import finish, machine, table
from benchmarks.stack import danmaku_folder, own_stack
from mmtpp.config.load import config_from_tree, with_values
from mmtpp.config.schema import RunConfig
from mmtpp.data.prepare import prepare
from mmtpp.sweep.run_sweep import run_sweep
from mmtpp.sweep.space import Sweep
from mmtpp.sweep.sweep_settings import SweepSettings
from mmtpp.train.launch import pretrain

RESULT = Path(__file__).with_suffix(".md")
ROUNDS, STEPS, VALIDATE_EVERY = 3, 300, 50
METRIC = "validation/loss_per_token"
MAX_RATIO = 1.05
WARM_UP = 10  # number of first steps that count as start-up


def configuration(danmaku: Path) -> RunConfig:
    """Settings of a training of about a minute that reports to Tune every few seconds."""
    return config_from_tree(
        {
            "source": {"kind": "danmaku", "uri": str(danmaku)},
            "store": {"uri": "s3://mmtpp/overhead/store"},
            "template": {"style": "minimal", "images": "none"},
            "window": {"max_tokens": 512},
            "lora": {"rank": 0},
            "training": {
                "num_steps": STEPS,
                "num_workers": 1,
                "samples_per_step": 2,
                "validate_every": VALIDATE_EVERY,
                "validation_sequences": 2,
                "checkpoint_every": 100000,
                "log_every": 1,
            },
            "run": {"storage_uri": "s3://mmtpp/overhead/runs"},
        }
    )


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds of one training.

    Attributes:
        after_start_up: From the first steps to the end of the MLflow run.
        in_steps: Part of ``after_start_up`` spent in training steps.
        total: From the start to the end.
    """

    after_start_up: float
    in_steps: float
    total: float

    @classmethod
    def from_run(cls, client: MlflowClient, run_id: str, total: float) -> "Times":
        """Read the times that the MLflow run logged."""
        steps = client.get_metric_history(run_id, "time/step_s")
        (first,) = [point.timestamp for point in steps if point.step == WARM_UP]
        end = client.get_run(run_id).info.end_time
        assert end is not None, f"run {run_id} has not ended"
        in_steps = sum(point.value for point in steps if point.step > WARM_UP)
        return cls((end - first) / 1000, in_steps, total)


def alone(config: RunConfig, client: MlflowClient, seed: int) -> Times:
    """Times of a training without a sweep."""
    started = time.monotonic()
    result = pretrain(with_values(config, {"training.seed": seed}))
    return Times.from_run(client, str(result["run_id"]), time.monotonic() - started)


def swept(config: RunConfig, client: MlflowClient, seed: int) -> Times:
    """Times of the only trial of a sweep; the total time is that of Tune."""
    settings = SweepSettings(name="overhead", metric=(METRIC,), mode=("min",))
    result = run_sweep(Sweep(settings, config, {"training.seed": [seed]}))
    (row,) = result["trials"]  # pyright: ignore[reportGeneralTypeIssues]
    (experiment,) = client.search_experiments(
        filter_string=f"name = '{config.tracking.experiment}'"
    )
    (child,) = client.search_runs(
        [experiment.experiment_id], f"tags.mlflow.parentRunId = '{result['run_id']}'"
    )
    return Times.from_run(client, child.info.run_id, row["seconds"])


def main() -> int:
    """Measure, print and write the results."""
    danmaku = danmaku_folder()
    alone_times: list[Times] = []
    trial_times: list[Times] = []
    with own_stack() as stack:
        config, client = configuration(danmaku), MlflowClient(stack.mlflow_uri)
        prepare(config)
        for number in range(ROUNDS):
            alone_times.append(alone(config, client, 2 * number))
            trial_times.append(swept(config, client, 2 * number + 1))
            print(alone_times[-1], trial_times[-1], flush=True)

    def spread(trainings: list[Times], name: str) -> str:
        values = [getattr(training, name) for training in trainings]
        return f"{statistics.median(values):.1f} [{min(values):.1f}-{max(values):.1f}]"

    ratio = statistics.median(training.after_start_up for training in trial_times)
    ratio /= statistics.median(training.after_start_up for training in alone_times)
    name = f"time of a trial after start-up over that of the training alone (at most {MAX_RATIO})"
    text = table(
        "Ray Tune's overhead",
        f"`make bench-sweep`; {machine('torch', 'ray', used='both used')}. {STEPS} steps, a report "
        f"every {VALIDATE_EVERY}, {ROUNDS} times in turn; median [range].",
        {
            f"{mode}, {name.replace('_', ' ')}, s": spread(trainings, name)
            for name in ("after_start_up", "in_steps", "total")
            for mode, trainings in (("alone", alone_times), ("as a trial", trial_times))
        },
        floors={name: f"{ratio:.3f}"},
    )
    return finish(text, RESULT, [name] if ratio > MAX_RATIO else [])


if __name__ == "__main__":
    sys.exit(main())
