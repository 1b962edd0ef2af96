"""Train on compressed event sequences: a whole tiny model, or LoRA on a base (stage 1).

python jobs/pretrain.py --config jobs/configs/demo.toml
"""

import sys

from mmtpp.config.job import run_job
from mmtpp.train.launch import pretrain

if __name__ == "__main__":
    sys.exit(run_job(__doc__ or "", pretrain, required=["store.uri", "run.storage_uri"]))
