"""Sweep settings with Ray Tune over Ray Train: one MLflow run with a child per trial.

python tune/sweep.py --config tune/configs/delta_rank.toml --set model.path=FOLDER
"""

import argparse
import json
import logging
import sys
from pathlib import Path

import ray
import ray.train
import ray.tune
from ray.tune.integration.ray_train import TuneReportCallback

# a script finds modules beside itself; `tune` is one level up
sys.path.insert(0, str(Path(__file__).parents[1]))

from mmtpp.config.fingerprint import fingerprint, run_fingerprint
from mmtpp.config.job import start_logging
from mmtpp.config.load import with_values
from mmtpp.core.errors import ClusterError, MmtppError
from mmtpp.data.prepare import start_ray
from mmtpp.storage.paths import filesystem_of, join, write_bytes
from mmtpp.track.mlflow_tracker import MlflowTracker, RunIdentity
from mmtpp.track.provenance import versions
from mmtpp.train.launch import pretrain
from tune.report import as_toml, ranked, table
from tune.space import Sweep, load_sweep

logger = logging.getLogger(__name__)

# A trial's driver only waits for its workers.
DRIVER_CPUS = 0.1


def main() -> int:
    """Run the sweep and print its result as one JSON object on the last line."""
    start_logging()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", metavar="FILE.toml", type=Path, required=True)
    parser.add_argument("--set", metavar="SECTION.KEY=VALUE", action="append", default=[])
    parser.add_argument("--dry-run", action="store_true")
    options = parser.parse_args()
    try:
        sweep = load_sweep(options.config, options.set)
        if options.dry_run:
            print(json.dumps(sweep.trials()))
            return 0
        result = run(sweep)
    except MmtppError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(json.dumps(result, allow_nan=False))
    return 0


def run(sweep: Sweep) -> dict[str, object]:
    """Run every trial; a failing one is recorded and does not stop the others.

    Raises:
        ClusterError: all trials failed.
    """
    start_ray()
    name = (
        f"{sweep.name}-{fingerprint({'grid': sweep.grid, 'of': run_fingerprint(sweep.config)})[:8]}"
    )
    uri = join(sweep.config.run.storage_uri, name)
    parent = MlflowTracker.of_run(sweep.config.tracking, RunIdentity(name, uri, name))
    parent.tags({"mmtpp.job": "sweep", **versions()})
    parent_id = parent.wait_for_run(20.0) or ""

    def driver(values: dict[str, object]) -> None:
        config = sweep.trial_config(values)
        trial = f"{name}-{run_fingerprint(config)[:8]}"
        config = with_values(config, {"run.name": trial, "tracking.parent_run_id": parent_id})
        pretrain(config, callbacks=[TuneReportCallback()])

    filesystem, path = filesystem_of(sweep.config.run.storage_uri)
    results = ray.tune.Tuner(
        ray.tune.with_resources(driver, {"CPU": DRIVER_CPUS}),
        param_space={key: ray.tune.grid_search(values) for key, values in sweep.grid.items()},
        tune_config=ray.tune.TuneConfig(
            metric=sweep.metric, mode=sweep.mode, max_concurrent_trials=_concurrency(sweep)
        ),
        run_config=ray.tune.RunConfig(
            name=f"{name}-tune", storage_path=path, storage_filesystem=filesystem, verbose=0
        ),
    ).fit()
    rows = [
        {
            **(result.config or {}),
            **{key: value for key, value in (result.metrics or {}).items() if "/" in key},
            "error": _reason(result.error),
        }
        for result in results
    ]
    rows = ranked(rows, sweep.metric, sweep.mode)
    text = table(rows, list(sweep.grid))
    print(text, flush=True)
    parent.text("trials.md", text)
    if all(row["error"] for row in rows):
        parent.close("FAILED")
        raise ClusterError(f"all {len(rows)} trials failed; the first: {rows[0]['error']}")
    best = {key: rows[0][key] for key in sweep.grid}
    best_toml = as_toml(with_values(sweep.trial_config(best), {"run.name": ""}))
    best_uri = join(uri, "best.toml")
    write_bytes(best_uri, best_toml.encode())
    parent.text("best.toml", best_toml)
    parent.metrics(0, {f"best/{sweep.metric}": float(rows[0][sweep.metric])})  # pyright: ignore[reportArgumentType]
    parent.tags({f"best.{key}": str(value) for key, value in best.items()})
    parent.close("FINISHED")
    return {
        "run_id": parent.run_id,
        "trials": rows,
        "best": best,
        "best_uri": best_uri,
        "failed": sum(bool(row["error"]) for row in rows),
    }


def _reason(error: BaseException | None) -> str:
    """One line on why a trial failed; empty when it did not."""
    if error is None:
        return ""
    cause = getattr(error, "cause", None) or error
    if isinstance(cause, MmtppError):
        return f"{type(cause).__name__}: {cause.what} ({cause.where})"
    return (str(error).splitlines() or [type(error).__name__])[-1]


def _concurrency(sweep: Sweep) -> int:
    """Trials at a time, so that running ones never wait for each other's workers."""
    resources, training = ray.cluster_resources(), sweep.config.training
    cpus = training.num_workers * training.cpus_per_worker + DRIVER_CPUS
    fitting = resources.get("CPU", 0) / cpus
    if training.device == "gpu" or (training.device == "auto" and resources.get("GPU", 0) > 0):
        fitting = min(fitting, resources.get("GPU", 0) / training.num_workers)
    if fitting < 1:
        logger.warning(
            "a trial of %d workers does not fit the cluster now (%g CPUs, %g GPUs); one at a time, "
            "waiting for an autoscaler to bring machines",
            training.num_workers,
            resources.get("CPU", 0),
            resources.get("GPU", 0),
        )
    return max(1, min(sweep.max_concurrent, int(fitting)))


if __name__ == "__main__":
    sys.exit(main())
