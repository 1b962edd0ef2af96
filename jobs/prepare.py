"""Prepare an event store: raw events and images in, tokenised sequences out.

python jobs/prepare.py --config jobs/configs/demo.toml
"""

import sys

from mmtpp.config.job import run_job
from mmtpp.data.prepare import prepare

if __name__ == "__main__":
    sys.exit(run_job(__doc__ or "", prepare, required=["source.uri", "store.uri"]))
