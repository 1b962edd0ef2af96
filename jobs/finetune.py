"""Train to forecast: when the next event comes, its type and its text (stage 2).

python jobs/finetune.py --config jobs/configs/demo_finetune.toml --set model.path=FOLDER
"""

import sys

from mmtpp.config.job import run_job
from mmtpp.train.launch import finetune

if __name__ == "__main__":
    sys.exit(run_job(__doc__ or "", finetune, required=["store.uri", "run.storage_uri"]))
