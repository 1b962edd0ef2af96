"""Train a language model on event sequences (stage 1), an expert, or a soft model.

python jobs/pretrain.py --config jobs/configs/demo.toml
"""

import sys

from mmtpp.cli.jobs import run_named_job

if __name__ == "__main__":
    sys.exit(run_named_job("pretrain", example=__doc__ or ""))
