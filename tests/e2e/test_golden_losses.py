"""Thirty steps with the demo's settings and data, compared with losses that were committed.

After a change that is meant to alter them: ``MMTPP_WRITE_GOLDEN=1 pytest
tests/e2e/test_golden_losses.py``, and say in CHANGELOG.md why the demo learns otherwise.
"""

import json
import os
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from mmtpp.config.load import load_config, with_values
from mmtpp.data.prepare import prepare
from mmtpp.train.launch import pretrain
from tests.conftest import ROOT
from tests.on_ray.curves import curve

GOLDEN = Path(__file__).parents[1] / "golden" / "demo_losses.json"
NUM_STEPS = 30
# other processors and thread counts sum in another order
TOLERANCE = {10: 1e-4, NUM_STEPS: 5e-3}


def test_thirty_steps_learn_as_before(cluster):
    config = with_values(
        load_config(ROOT / "jobs/configs/demo.toml", []),
        {
            "store.uri": "s3://mmtpp/golden/store",
            "source.uri": "s3://mmtpp/golden/raw",
            "run.storage_uri": "s3://mmtpp/golden/runs",
            "run.name": "golden",
            "training.num_steps": NUM_STEPS,
            "training.log_every": 1,
            "training.validation_sequences": 0,
        },
    )
    prepare(config)
    losses = curve(MlflowClient(cluster.mlflow_uri), pretrain(config)["run_id"])
    if os.environ.get("MMTPP_WRITE_GOLDEN"):
        GOLDEN.write_text(json.dumps(losses, indent=1) + "\n")
    golden = {int(step): loss for step, loss in json.loads(GOLDEN.read_text()).items()}
    assert list(range(1, NUM_STEPS + 1)) == sorted(losses) == sorted(golden)
    for first, (last, tolerance) in zip((1, 11), TOLERANCE.items(), strict=True):
        for step in range(first, last + 1):
            assert golden[step] == pytest.approx(losses[step], abs=tolerance), f"step {step}"
    assert losses[1] > losses[NUM_STEPS] + 1
