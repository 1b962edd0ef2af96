"""Merge a LoRA adapter into its base: a Hugging Face folder for transformers and vLLM.

python jobs/export.py --set model.path=BASE --set model.adapter=ADAPTER --set run.storage_uri=FOLDER
"""

import sys

from mmtpp.cli.jobs import run_named_job

if __name__ == "__main__":
    sys.exit(run_named_job("export", example=__doc__ or ""))
