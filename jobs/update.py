"""Continue a forecaster on new events, and promote it if it is better.

python jobs/update.py --config jobs/configs/demo.toml --set window.time_to=525600 \\
    --set update.model=models:/NAME@champion --set update.new_from=480960
"""

import sys

from mmtpp.cli.jobs import run_named_job

if __name__ == "__main__":
    sys.exit(run_named_job("update", example=__doc__ or ""))
