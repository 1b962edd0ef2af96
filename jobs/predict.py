"""Forecast the event that comes next in every sequence of a user's own event files.

python jobs/predict.py --config jobs/configs/demo_finetune.toml --set model.path=FOLDER \\
    --set source.uri=EVENTS --set store.uri=""
"""

import sys

from mmtpp.config.job import run_job
from mmtpp.evaluate.predict import predict

if __name__ == "__main__":
    sys.exit(run_job(__doc__ or "", predict, required=["run.storage_uri", "model.path"]))
