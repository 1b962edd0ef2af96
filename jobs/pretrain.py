"""Train on compressed event sequences: a whole tiny model, or LoRA on a base (stage 1).

python jobs/pretrain.py --config jobs/configs/demo.toml
"""

import sys

from mmtpp.cli.jobs import run_named_job

if __name__ == "__main__":
    sys.exit(run_named_job("pretrain", example=__doc__ or ""))
