"""Train to forecast the time, the type and the text of the next event (stage 2).

python jobs/finetune.py --config jobs/configs/demo_finetune.toml --set model.path=FOLDER
"""

import sys

from mmtpp.cli.jobs import run_named_job

if __name__ == "__main__":
    sys.exit(run_named_job("finetune", example=__doc__ or ""))
