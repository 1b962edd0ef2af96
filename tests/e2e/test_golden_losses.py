"""Thirty steps with the demo's settings and data, compared with committed losses.

After a change that alters the losses on purpose, run ``MMTPP_WRITE_GOLDEN=1 pytest
tests/e2e/test_golden_losses.py`` and give the reason in CHANGELOG.md.
"""

import json
import os
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from mmtpp.data.prepare import prepare
from mmtpp.train.launch import pretrain
from tests.e2e.demo import demo_config
from tests.helpers.curves import curve

GOLDEN = Path(__file__).parents[1] / "golden" / "demo_losses.json"
NUM_STEPS = 30
# the order of sums depends on the CPU and the number of threads
TOLERANCE = {10: 1e-4, NUM_STEPS: 5e-3}


def test_the_losses_of_thirty_steps_equal_the_committed_ones(cluster):
    config = demo_config("golden", **{"training.num_steps": NUM_STEPS})
    prepare(config)
    losses = curve(MlflowClient(cluster.mlflow_uri), pretrain(config)["run_id"])
    if os.environ.get("MMTPP_WRITE_GOLDEN"):
        GOLDEN.write_text(json.dumps(losses, indent=1) + "\n")
    golden = {int(step): loss for step, loss in json.loads(GOLDEN.read_text()).items()}
    assert sorted(losses) == sorted(golden) == list(range(1, NUM_STEPS + 1))
    for first, (last, tolerance) in zip((1, 11), TOLERANCE.items(), strict=True):
        for step in range(first, last + 1):
            assert losses[step] == pytest.approx(golden[step], abs=tolerance), f"step {step}"
    assert losses[1] > losses[NUM_STEPS] + 1
