"""Mix a fine-tuned language model with a temporal expert: fit the gate between their forecasts.

python jobs/combine.py --config FILE --set model.path=BASE --set model.adapter=ADAPTER \\
--set model.expert=EXPERT
"""

import sys

from mmtpp.cli.jobs import run_named_job

if __name__ == "__main__":
    sys.exit(run_named_job("combine", example=__doc__ or ""))
