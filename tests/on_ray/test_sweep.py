"""A sweep on a real cluster and MLflow server."""

import pytest
from mlflow.tracking import MlflowClient

from mmtpp.config.load import load_config
from mmtpp.storage.paths import read_bytes
from tests.on_ray.settings import make_config
from tune.report import as_toml
from tune.space import load_sweep
from tune.sweep import run


@pytest.mark.slow
def test_a_sweep_has_one_parent_with_a_child_for_each_trial(base, stack, tmp_path):
    """Two trials, one of which fails: it is recorded and does not stop the other."""
    file = tmp_path / "sweep.toml"
    tree = make_config(**{"model.path": base["adapter_uri"], "training.num_steps": 3,
                      "lora.rank": 2, "training.num_workers": 1, "training.max_failures": 0,
                      "evaluation.targets_delta": 1.0})  # fmt: skip
    file.write_text(
        '[sweep]\nname = "s"\nmetric = "validation/interval_nll_nats_per_event"\nmode = "min"\n'
        'max_concurrent = 1\n[space]\n"compression.delta" = [0.5]\n'
        '"training.learning_rate" = [0.003, 1e30]\n' + as_toml(tree)
    )
    result = run(load_sweep(file, []))
    assert (1, {"compression.delta": 0.5, "training.learning_rate": 0.003}) == (
        result["failed"],
        result["best"],
    )
    assert "not finite" in str(result["trials"][1]["error"])
    client = MlflowClient(stack.mlflow_uri)
    (experiment,) = client.search_experiments(filter_string="name = 'mmtpp'")
    children = client.search_runs(
        [experiment.experiment_id], f"tags.`mlflow.parentRunId` = '{result['run_id']}'"
    )
    assert ["FAILED", "FINISHED"] == sorted(child.info.status for child in children)
    best = tmp_path / "best.toml"
    best.write_bytes(read_bytes(result["best_uri"]))
    assert 0.003 == load_config(best).training.learning_rate
