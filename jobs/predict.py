"""Forecast the next event of every sequence in your own event files.

python jobs/predict.py --config jobs/configs/demo_finetune.toml --set model.path=FOLDER \\
    --set source.uri=EVENTS --set store.uri=""
"""

import sys

from mmtpp.cli.jobs import run_named_job

if __name__ == "__main__":
    sys.exit(run_named_job("predict", example=__doc__ or ""))
