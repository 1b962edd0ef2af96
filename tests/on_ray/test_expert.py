"""The temporal expert on a real cluster: training with a killed worker, evaluation, forecasts."""

import numpy as np
import pytest
from mlflow.tracking import MlflowClient

from mmtpp.evaluate.evaluate import evaluate
from mmtpp.expert.expert_folder import load_expert
from mmtpp.expert.network import ExpertNetwork
from mmtpp.storage.manifest import load_manifest
from mmtpp.storage.parquet import read_table
from mmtpp.train.launch import pretrain
from tests.helpers.job_settings import EXPERT, STORE, make_config
from tests.on_ray.agreement import check_predict_and_the_api_agree

COIN = np.log(2)  # an interval is 5 or 6 s, or 60 or 61 s, and the type is certain


def test_another_number_of_workers_gives_the_same_expert(expert):
    alone = pretrain(
        make_config(**EXPERT, **{"run.name": "expert-alone", "training.num_workers": 1})
    )
    experts = [load_expert(str(result["model_uri"])) for result in (expert, alone)]
    assert experts[0].memory == experts[1].memory
    # sums of gradients have another order, which hundreds of updates amplify; test_fit.py compares
    # a few updates exactly
    after_kill, whole = (list(map(_weights, trained.networks)) for trained in experts)
    for weights, expected in zip(after_kill, whole, strict=True):
        assert _correlation(weights, expected) > 0.95
    assert abs(_correlation(*whole)) < 0.5  # networks with other random starts
    name = "validation/joint_nll_nats_per_event"
    assert expert["metrics"][name] == pytest.approx(alone["metrics"][name], abs=0.02)


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.corrcoef(np.stack([first, second]))[0, 1])


def _weights(network: ExpertNetwork) -> np.ndarray:
    """All trained weights; every tensor counts with a standard deviation of 1."""
    tensors = [parameter.detach().numpy().ravel() for parameter in network.parameters()]
    return np.concatenate([tensor / tensor.std() for tensor in tensors])


def test_it_is_tracked_and_learns(expert, stack):
    client = MlflowClient(stack.mlflow_uri)
    run = client.get_run(expert["run_id"])
    assert run.data.tags["mmtpp.job"] == "pretrain"
    assert "temporal expert" in run.data.tags["mlflow.note.content"]
    assert client.get_metric_history(expert["run_id"], "train/joint_nll_nats_per_event")
    final = run.data.metrics["final/validation/joint_nll_nats_per_event"]
    assert COIN - 0.05 < final < COIN + 0.4
    again = pretrain(make_config(**EXPERT, **{"run.name": "expert"}))
    assert again["run_id"] == expert["run_id"]


def test_it_is_evaluated_like_every_model(expert):
    settings = {
        "model.path": expert["model_uri"],
        "evaluation.num_futures": 2,
        "evaluation.horizon": 70.0,
        "evaluation.origins_per_sequence": 3,
    }
    result = evaluate(make_config(**settings))
    manifest = load_manifest(STORE)
    sequences = manifest.sequences_by_split["test"]
    targets = read_table(str(result["targets_uri"]))
    assert len(targets) == manifest.events_by_split["test"] - sequences
    names = ("sequence_id", "position")
    assert len(targets.group_by(list(names)).aggregate([])) == len(targets)
    metrics, baselines = result["metrics"], result["baselines"]
    assert COIN - 0.05 < metrics["joint/nll_nats_per_event"] < COIN + 0.4
    assert metrics["type/accuracy"] > 0.95
    assert metrics["joint/nll_nats_per_event"] < baselines["hawkes/joint/nll_nats_per_event"]
    futures = read_table(str(result["targets_uri"]).replace("targets", "futures"))
    assert len(futures) == sequences * 3 * 2
    assert metrics["horizon/otd_s"] > 0


def test_predict_and_the_python_api_agree(expert):
    check_predict_and_the_api_agree(str(expert["model_uri"]))
