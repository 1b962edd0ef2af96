"""The cluster files: Ray's loader accepts them, they hold no secrets and open no port to all."""

import ast
import json
import re
import sys
import tomllib
from pathlib import Path

import pytest
import ray
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parents[3]


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
    assert set(types) == {"head", "cpu_data", "gpu_l4", "gpu_l4_spot", "gpu_a100"}
    assert types["head"]["resources"]["CPU"] == 0
    workers = [kind for name, kind in types.items() if name != "head"]
    assert all(kind["min_workers"] == 0 < kind["max_workers"] for kind in workers)
    roles = {name: kind["labels"]["role"] for name, kind in types.items() if name != "head"}
    assert roles == {
        "cpu_data": "data",
        "gpu_l4": "train",
        "gpu_l4_spot": "train",
        "gpu_a100": "train",
    }


def test_on_premises_machines_are_all_used_and_labelled():
    config = _load("cluster/on_prem.yaml")
    (kind,) = config["available_node_types"].values()
    assert len(config["provider"]["worker_ips"]) == kind["min_workers"] == kind["max_workers"]
    assert "--num-cpus=0" in config["head_start_ray_commands"][-1]
    assert "--labels=" in config["worker_start_ray_commands"][-1]


def test_the_files_of_both_clouds_agree():
    """Keeps the file for Google Cloud in step with the file for AWS."""
    aws, gcp = (yaml.safe_load((ROOT / name).read_text()) for name in FILES[:2])
    same = {
        "cluster_name",
        "max_workers",
        "upscaling_speed",
        "idle_timeout_minutes",
        "file_mounts",
        "head_node_type",
        "rsync_exclude",
        "worker_start_ray_commands",
        "head_start_ray_commands",
    }
    assert {key: aws[key] for key in same} == {key: gcp[key] for key in same}
    expected = [command.replace("[aws,", "[gcp,") for command in aws["setup_commands"]]
    assert gcp["setup_commands"][: len(expected)] == expected
    for name, kind in aws["available_node_types"].items():
        for key in ("labels", "min_workers", "max_workers"):
            assert kind.get(key) == gcp["available_node_types"][name].get(key)


def _imported(folder: Path) -> set[str]:
    """Packages that the modules of a folder import at the top level, except Python's and Ray."""
    packages: set[str] = set()
    for path in folder.glob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Import):
                packages |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                packages.add(node.module.partition(".")[0])
    return packages - sys.stdlib_module_names - {"ray"}


@pytest.mark.parametrize(
    ("cloud", "provided"),
    [
        # modules that each package of the extra installs
        (
            "aws",
            {
                "boto3": {"boto3"},
                "botocore": {"botocore"},
                "obstore": {"obstore"},
                "s3fs": {"s3fs"},
            },
        ),
        (
            "gcp",
            {
                "gcsfs": {"gcsfs"},
                "google-api-python-client": {"googleapiclient", "google"},
                "google-auth-httplib2": {"google_auth_httplib2"},
                "httplib2": {"httplib2"},
            },
        ),
    ],
)
def test_heads_have_the_packages_that_rays_autoscaler_imports(cloud: str, provided: dict):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extra = project["optional-dependencies"][cloud]
    assert {re.split(r"[><=]", requirement)[0] for requirement in extra} == set(provided)
    needed = _imported(Path(ray.__file__).parent / "autoscaler" / "_private" / cloud)
    base = {"cryptography", "packaging"}  # requirements of ray[default] and of this project
    assert needed <= set().union(*provided.values(), base), needed
    pinned = (ROOT / "constraints.txt").read_text()
    assert all(f"\n{package}==" in pinned for package in provided)
    name = {"aws": "ray_cluster.yaml", "gcp": "cluster/gcp.yaml"}[cloud]
    assert any(f"'.[{cloud}," in command for command in _load(name)["setup_commands"])


def test_the_head_may_start_only_the_machines_of_the_file():
    config = _load("ray_cluster.yaml")
    policy = json.loads((ROOT / "cluster" / "aws" / "head.json").read_text())
    (start,) = (
        statement
        for statement in policy["Statement"]
        if statement["Sid"] == "StartMachinesOfTheFile"
    )
    condition = start["Condition"]["StringEquals"]
    workers = [kind for name, kind in config["available_node_types"].items() if name != "head"]
    assert sorted(condition["ec2:InstanceType"]) == sorted(
        {kind["node_config"]["InstanceType"] for kind in workers}
    )
    assert condition["aws:RequestTag/ray-cluster-name"] == config["cluster_name"]
    unbounded = [
        statement["Sid"]
        for statement in policy["Statement"]
        if statement["Resource"] == "*" and not statement["Sid"].startswith("See")
    ]
    assert not unbounded


def test_an_unknown_key_is_refused(cluster):
    with pytest.raises(Exception, match="max_wrkers"):
        validate_config({**cluster, "max_wrkers": 3})


@pytest.mark.parametrize("name", FILES)
def test_the_file_holds_no_secret_and_opens_no_port(name):
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
