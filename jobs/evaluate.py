"""Score a trained model on held-out sequences and compare it with baselines.

python jobs/evaluate.py --config jobs/configs/demo.toml --set model.path=FOLDER
"""

import sys

from mmtpp.cli.jobs import run_named_job

if __name__ == "__main__":
    sys.exit(run_named_job("evaluate", example=__doc__ or ""))
