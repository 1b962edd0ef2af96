"""Thirty steps with the demo's settings and data, compared with losses that were committed.

After a change that is meant to alter them: ``MMTPP_WRITE_GOLDEN=1 pytest
tests/e2e/test_golden_losses.py``, and say in CHANGELOG.md why the demo learns otherwise.
"""

import json
import os
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from mmtpp.data.prepare import prepare
from mmtpp.train.launch import pretrain
from tests.e2e.demo import demo_config
from tests.on_ray.curves import curve

GOLDEN = Path(__file__).parents[1] / "golden" / "demo_losses.json"
NUM_STEPS = 30
# other processors and thread counts sum in another order
TOLERANCE = {10: 1e-4, NUM_STEPS: 5e-3}


def test_thirty_steps_learn_as_before(cluster):
    config = demo_config("golden", **{"training.num_steps": NUM_STEPS})
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
