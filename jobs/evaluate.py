"""Score a trained model on held-out sequences and compare it with baselines.

python jobs/evaluate.py --config jobs/configs/demo.toml --set model.path=FOLDER
"""

import sys

from mmtpp.config.job import run_job
from mmtpp.evaluate.evaluate import evaluate

if __name__ == "__main__":
    required = ["store.uri", "run.storage_uri", "model.path"]
    sys.exit(run_job(__doc__ or "", evaluate, required=required))
