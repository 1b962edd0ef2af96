"""The demo trained with Muon: a run that loses a worker has the losses of an uninterrupted run."""

import pytest
from mlflow.tracking import MlflowClient

from mmtpp.data.prepare import prepare
from mmtpp.train.launch import pretrain
from tests.e2e.demo import RUNS, demo_config
from tests.helpers.curves import curve
from tests.helpers.killing import worker_killed_after_checkpoint

NUM_STEPS = 30


@pytest.mark.slow
def test_muon_trains_the_demo_and_resumes_exactly(cluster):
    def muon(name: str):
        changes = {
            "optimizer.name": "muon",
            "training.num_steps": NUM_STEPS,
            "training.checkpoint_every": 10,
            "training.max_failures": 1,
        }
        return demo_config(name, **changes)

    client = MlflowClient(cluster.mlflow_uri)
    prepare(muon("muon"))
    uninterrupted = curve(client, pretrain(muon("muon"))["run_id"])
    with worker_killed_after_checkpoint(f"{RUNS}/muon-killed"):
        killed = curve(client, pretrain(muon("muon-killed"))["run_id"])
    assert sorted(uninterrupted) == list(range(1, NUM_STEPS + 1))
    assert killed == uninterrupted  # bit for bit
    assert uninterrupted[1] > uninterrupted[NUM_STEPS] + 1
