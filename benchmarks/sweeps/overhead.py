"""What Ray Tune costs beside the training it drives.

    make bench-sweep        about a quarter of an hour

The same training, in turn alone and as the only trial of a sweep: from its first logged step to the
end of its MLflow run, which is a trial's time beyond start-up; and, for the start-up, in all. Needs
MMTPP_TEST_DATA for the danmaku. Writes ``overhead.md`` beside this file; fails above ``FLOOR``.
"""

import os

os.environ.setdefault("RAY_AUTH_MODE", "token")  # Ray reads it when it is imported

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
from mmtpp.sweep.run_sweep import run
from mmtpp.sweep.space import Sweep
from mmtpp.sweep.sweep_settings import SweepSettings
from mmtpp.train.launch import pretrain

RESULT = Path(__file__).with_suffix(".md")
ROUNDS, STEPS, VALIDATE_EVERY = 3, 300, 50
METRIC = "validation/loss_per_token"
FLOOR = 1.05
WARM_UP = 10  # steps that are start-up still


def configuration(danmaku: Path) -> RunConfig:
    """A training of about a minute, which reports to Tune every few seconds."""
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
        beyond_start_up: from its first steps to the end of its MLflow run.
        in_steps: of these, in training steps.
        in_all: from its start to its end.
    """

    beyond_start_up: float
    in_steps: float
    in_all: float

    @classmethod
    def of(cls, client: MlflowClient, run_id: str, in_all: float) -> "Times":
        """From what the run logged."""
        steps = client.get_metric_history(run_id, "time/step_s")
        (first,) = [point.timestamp for point in steps if point.step == WARM_UP]
        end = client.get_run(run_id).info.end_time
        assert end is not None, f"run {run_id} has not ended"
        in_steps = sum(point.value for point in steps if point.step > WARM_UP)
        return cls((end - first) / 1000, in_steps, in_all)


def alone(config: RunConfig, client: MlflowClient, seed: int) -> Times:
    """Of a training by itself."""
    started = time.monotonic()
    result = pretrain(with_values(config, {"training.seed": seed}))
    return Times.of(client, str(result["run_id"]), time.monotonic() - started)


def swept(config: RunConfig, client: MlflowClient, seed: int) -> Times:
    """Of a sweep's only trial, whose time in all is what Tune says."""
    settings = SweepSettings(name="overhead", metric=(METRIC,), mode=("min",))
    result = run(Sweep(settings, config, {"training.seed": [seed]}))
    (row,) = result["trials"]  # pyright: ignore[reportGeneralTypeIssues]
    (experiment,) = client.search_experiments(
        filter_string=f"name = '{config.tracking.experiment}'"
    )
    (child,) = client.search_runs(
        [experiment.experiment_id], f"tags.mlflow.parentRunId = '{result['run_id']}'"
    )
    return Times.of(client, child.info.run_id, row["seconds"])


def main() -> int:
    """Measure, print, write."""
    danmaku = danmaku_folder()
    by_itself: list[Times] = []
    in_sweep: list[Times] = []
    with own_stack() as stack:
        config, client = configuration(danmaku), MlflowClient(stack.mlflow_uri)
        prepare(config)
        for number in range(ROUNDS):
            by_itself.append(alone(config, client, 2 * number))
            in_sweep.append(swept(config, client, 2 * number + 1))
            print(by_itself[-1], in_sweep[-1], flush=True)

    def spread(trainings: list[Times], name: str) -> str:
        values = [getattr(training, name) for training in trainings]
        return f"{statistics.median(values):.1f} [{min(values):.1f}-{max(values):.1f}]"

    ratio = statistics.median(
        training.beyond_start_up for training in in_sweep
    ) / statistics.median(training.beyond_start_up for training in by_itself)
    name = f"a trial's time beyond start-up over the same training alone (at most {FLOOR})"
    text = table(
        "Ray Tune's overhead",
        f"`make bench-sweep`; {machine('torch', 'ray', used='both used')}. {STEPS} steps, a report "
        f"every {VALIDATE_EVERY}, {ROUNDS} times in turn; median [range].",
        {
            f"{who}, {name.replace('_', ' ')}, s": spread(trainings, name)
            for name in ("beyond_start_up", "in_steps", "in_all")
            for who, trainings in (("alone", by_itself), ("as a trial", in_sweep))
        },
        floors={name: f"{ratio:.3f}"},
    )
    return finish(text, RESULT, [name] if ratio > FLOOR else [])


if __name__ == "__main__":
    sys.exit(main())
