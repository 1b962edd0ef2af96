"""Compare ways to keep an expert up to date: forecast each period, then learn from it.

python jobs/prequential.py --config jobs/configs/demo.toml \\
    --set prequential.period=43200 --set prequential.first_periods=3
"""

import sys

from mmtpp.cli.jobs import run_named_job

if __name__ == "__main__":
    sys.exit(run_named_job("prequential", example=__doc__ or ""))
