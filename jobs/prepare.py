"""Prepare an event store: read raw events and images, write tokenised sequences.

python jobs/prepare.py --config jobs/configs/demo.toml
"""

import sys

from mmtpp.cli.jobs import run_named_job

if __name__ == "__main__":
    sys.exit(run_named_job("prepare", example=__doc__ or ""))
