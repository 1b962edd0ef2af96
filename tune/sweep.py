"""Run a sweep with Ray Tune over Ray Train: one MLflow run with a child run for each trial.

python tune/sweep.py --config tune/configs/delta_rank.toml --set model.path=FOLDER

The same command resumes a sweep that was interrupted, or that a smaller budget ended. --resume
fails if the sweep was never started.
"""

import sys

from mmtpp.cli.sweep_job import run_sweep_job

if __name__ == "__main__":
    sys.exit(run_sweep_job(__doc__ or ""))
