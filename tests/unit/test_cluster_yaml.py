"""The cluster file: accepted by Ray's own loader, without secrets, closed to strangers."""

import re
from pathlib import Path

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parents[2]


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    config = yaml.safe_load((ROOT / "ray_cluster.yaml").read_text())
    config = prepare_config(config)
    validate_config(config)
    return config


def test_ray_accepts_the_file_and_sees_data_and_gpu_groups(cluster):
    types = cluster["available_node_types"]
    assert {"head", "cpu_data", "gpu_l4", "gpu_l4_spot", "gpu_a100"} == set(types)
    assert 0 == types["head"]["resources"]["CPU"]
    workers = [kind for name, kind in types.items() if name != "head"]
    assert all(kind["min_workers"] == 0 < kind["max_workers"] for kind in workers)
    roles = {name: kind["labels"]["role"] for name, kind in types.items() if name != "head"}
    assert {
        "cpu_data": "data",
        "gpu_l4": "train",
        "gpu_l4_spot": "train",
        "gpu_a100": "train",
    } == roles


def test_a_wrong_key_would_be_noticed(cluster):
    with pytest.raises(Exception, match="max_wrkers"):
        validate_config({**cluster, "max_wrkers": 3})


def test_nothing_secret_and_nothing_open_is_in_the_file(cluster):
    text = (ROOT / "ray_cluster.yaml").read_text()
    assert not re.search(
        r"AKIA[0-9A-Z]{16}|aws_secret|BEGIN [A-Z ]*PRIVATE KEY|password", text, re.I
    )
    assert "0.0.0.0" not in text
    head = " ".join(cluster["head_start_ray_commands"])
    assert "--dashboard-host=127.0.0.1" in head
    assert "RAY_AUTH_MODE=token" in " ".join(cluster["setup_commands"])
