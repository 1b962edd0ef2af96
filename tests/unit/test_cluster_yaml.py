"""The cluster files: accepted by Ray's own loader, without secrets, closed to strangers."""

import re
from pathlib import Path

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parents[2]


FILES = ["ray_cluster.yaml", "cluster/gcp.yaml", "cluster/on_prem.yaml"]


def _load(name: str):
    config = prepare_config(yaml.safe_load((ROOT / name).read_text()))
    validate_config(config)
    return config


@pytest.fixture(params=FILES)
def cluster(request, monkeypatch):
    monkeypatch.chdir(ROOT)
    return _load(request.param)


@pytest.mark.parametrize("name", FILES[:2])
def test_ray_accepts_the_file_and_sees_data_and_gpu_groups(name):
    types = _load(name)["available_node_types"]
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


def test_own_machines_are_all_used_and_carry_their_labels():
    config = _load("cluster/on_prem.yaml")
    (kind,) = config["available_node_types"].values()
    assert len(config["provider"]["worker_ips"]) == kind["min_workers"] == kind["max_workers"]
    assert "--num-cpus=0" in config["head_start_ray_commands"][-1]
    assert "--labels=" in config["worker_start_ray_commands"][-1]


def test_clouds_differ_only_where_they_must():
    """The Google file drifts from the Amazon one unseen otherwise."""
    aws, gcp = (yaml.safe_load((ROOT / name).read_text()) for name in FILES[:2])
    same = {"cluster_name", "max_workers", "upscaling_speed", "idle_timeout_minutes", "file_mounts",
            "head_node_type", "rsync_exclude", "worker_start_ray_commands",
            "head_start_ray_commands"}  # fmt: skip
    assert {key: aws[key] for key in same} == {key: gcp[key] for key in same}
    assert aws["setup_commands"] == gcp["setup_commands"][: len(aws["setup_commands"])]
    for name, kind in aws["available_node_types"].items():
        for key in ("labels", "min_workers", "max_workers"):
            assert kind.get(key) == gcp["available_node_types"][name].get(key)


def test_a_wrong_key_would_be_noticed(cluster):
    with pytest.raises(Exception, match="max_wrkers"):
        validate_config({**cluster, "max_wrkers": 3})


@pytest.mark.parametrize("name", FILES)
def test_nothing_secret_and_nothing_open_is_in_the_file(name):
    text = (ROOT / name).read_text()
    assert not re.search(
        r"AKIA[0-9A-Z]{16}|aws_secret_access_key: |BEGIN [A-Z ]*PRIVATE KEY|password", text, re.I
    )
    assert "0.0.0.0" not in text
    config = _load(name)
    head = " ".join(config["head_start_ray_commands"])
    assert "--dashboard-host=127.0.0.1" in head
    assert "RAY_JOB_STOP_WAIT_TIME_S=" in head
    assert "RAY_AUTH_MODE=token" in " ".join(config["setup_commands"])
    assert config["file_mounts"]["~/.ray/auth_token"]
