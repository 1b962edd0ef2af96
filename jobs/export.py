"""Merge a LoRA adapter into its base: a Hugging Face folder for transformers, vLLM and the like.

python jobs/export.py --set model.path=BASE --set model.adapter=ADAPTER --set run.storage_uri=FOLDER
"""

import sys

from mmtpp.config.job import run_job
from mmtpp.evaluate.export import export

if __name__ == "__main__":
    required = ["model.path", "model.adapter", "run.storage_uri"]
    sys.exit(run_job(__doc__ or "", export, required=required))
