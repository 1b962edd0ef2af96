"""The Kubernetes manifests and the image: valid, closed, and of the versions this project pins."""

import re
from importlib.metadata import version
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from pydantic import ValidationError

from mmtpp.config.load import load_config
from tests.unit.project.kuberay_types import RayCluster, RayJob

CLUSTER = Path(__file__).parents[3] / "cluster"
KUBERNETES = "1.33.0"  # not the newest, which clouds run late


@pytest.fixture(scope="module")
def manifest():
    return yaml.safe_load((CLUSTER / "kuberay" / "raycluster.yaml").read_text())


@pytest.fixture
def cluster(manifest):
    return RayCluster.model_validate(manifest)


def _pods(cluster: RayCluster) -> dict[str, dict]:
    groups = {group.groupName: group.template for group in cluster.spec.workerGroupSpecs}
    return {"head": cluster.spec.headGroupSpec.template, **groups}


def test_a_field_that_kuberay_does_not_know_is_noticed(manifest):
    wrong = {**manifest, "spec": {**manifest["spec"], "enableAutoscaling": True}}
    with pytest.raises(ValidationError, match="enableAutoscaling"):
        RayCluster.model_validate(wrong)


def test_pods_are_what_kubernetes_accepts(cluster):
    for name, template in _pods(cluster).items():
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, **template}
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)
    wrong = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "x"},
        "spec": {"containers": [{"name": "x", "volumeMount": []}]},
    }
    with pytest.raises(kubernetes_validate.ValidationError, match="volumeMount"):
        kubernetes_validate.validate(wrong, KUBERNETES, strict=True)


def test_pods_come_only_when_wanted_and_none_runs_on_the_head(cluster):
    spec = cluster.spec
    assert spec.enableInTreeAutoscaling
    assert spec.autoscalerOptions.version == "v2"
    assert spec.headGroupSpec.rayStartParams["num-cpus"] == "0"
    for group in spec.workerGroupSpecs:
        assert 0 == group.minReplicas == group.replicas < group.maxReplicas
        assert group.template["spec"]["restartPolicy"] == "Never"  # the autoscaler replaces it


def test_a_pod_that_is_told_to_go_has_time_for_a_checkpoint(cluster):
    for name, template in _pods(cluster).items():
        if name.startswith("train"):
            [container] = template["spec"]["containers"]
            values = {variable["name"]: variable.get("value") for variable in container["env"]}
            drained = float(values["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"])
            assert 30 < drained < template["spec"]["terminationGracePeriodSeconds"]


def test_other_pods_reach_the_job_server_alone():
    policy = yaml.safe_load((CLUSTER / "kuberay" / "networkpolicy.yaml").read_text())
    kubernetes_validate.validate(policy, KUBERNETES, strict=True)
    own, open_to_all = policy["spec"]["ingress"]
    assert policy["spec"]["podSelector"] == own["from"][0]["podSelector"]
    assert "ports" not in own
    assert [port["port"] for port in open_to_all["ports"]] == [8265]
    assert "from" not in open_to_all


def test_data_and_training_have_machines_of_their_own(cluster):
    gpus = {
        group.groupName: "nvidia.com/gpu"
        in group.template["spec"]["containers"][0]["resources"]["limits"]
        for group in cluster.spec.workerGroupSpecs
    }
    roles = {group.groupName: group.labels["role"] for group in cluster.spec.workerGroupSpecs}
    assert roles == {"data": "data", "train-l4": "train", "train-a100": "train"}
    assert gpus == {"data": False, "train-l4": True, "train-a100": True}
    for name, template in _pods(cluster).items():
        container = template["spec"]["containers"][0]
        assert container["resources"]["requests"] == container["resources"]["limits"], name
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in template["spec"]["volumes"]}


def test_the_redis_that_is_commented_out_is_what_kuberay_takes():
    text = (CLUSTER / "kuberay" / "raycluster.yaml").read_text()
    block = re.search(r"  # gcsFaultToleranceOptions:\n(  #   .*\n)+", text)
    assert block
    with_it = text.replace(block[0], block[0].replace("  # ", "  "))
    options = RayCluster.model_validate(yaml.safe_load(with_it)).spec.gcsFaultToleranceOptions
    assert options
    assert options.redisAddress.endswith(":6379")
    assert options.redisPassword
    assert not options.redisPassword.value  # a reference to a secret


def test_strangers_and_secrets_stay_out(cluster):
    assert cluster.spec.authOptions.mode == "token"
    assert cluster.spec.headGroupSpec.serviceType == "ClusterIP"
    assert not cluster.spec.headGroupSpec.enableIngress
    (head,) = cluster.spec.headGroupSpec.template["spec"]["containers"]
    names = {variable["name"] for variable in head["env"]}
    assert {"MLFLOW_TRACKING_URI", "MMTPP_CACHE", "RAY_JOB_STOP_WAIT_TIME_S"} <= names
    for template in _pods(cluster).values():
        for container in template["spec"]["containers"]:
            assert not container["securityContext"]["allowPrivilegeEscalation"]
            assert container["securityContext"]["runAsNonRoot"]
            assert container["securityContext"]["runAsUser"] == 1000
    for file in CLUSTER.rglob("*.yaml"):
        text = file.read_text()
        assert not re.search(r"AKIA[0-9A-Z]{16}|BEGIN [A-Z ]*PRIVATE KEY", text), file


def test_the_job_is_for_that_cluster_and_its_settings_exist(cluster):
    job = RayJob.model_validate(yaml.safe_load((CLUSTER / "kuberay" / "rayjob.yaml").read_text()))
    assert {"ray.io/cluster": cluster.metadata.name} == job.spec.clusterSelector
    words = job.spec.entrypoint.replace("/home/ray/mmtpp/", "").split()
    assert (CLUSTER.parent / words[1]).is_file()
    settings = [words[place + 1] for place, word in enumerate(words) if word == "--set"]
    config = load_config(CLUSTER.parent / words[words.index("--config") + 1], settings)
    for wanted in (config.store.machine_labels, config.training.machine_labels):
        groups = [
            group
            for group in cluster.spec.workerGroupSpecs
            if wanted.items() <= group.labels.items()
        ]
        assert wanted
        assert len(groups) == 1


def test_the_image_has_the_pinned_ray_and_what_jobs_need(cluster):
    docker = (CLUSTER / "Dockerfile").read_text()
    assert f"FROM rayproject/ray:{version('ray')}-py311" in docker
    assert version("ray") == cluster.spec.rayVersion
    copied = [
        name
        for line in re.findall(r"^COPY --chown=ray (.*)$", docker, re.MULTILINE)
        for name in line.split()[:-1]
    ]
    assert {"mmtpp", "tune", "jobs", "constraints.txt", "pyproject.toml"} <= set(copied)
    assert all((CLUSTER.parent / name).exists() for name in copied)
    assert "--constraint constraints.txt" in docker
    assert re.findall(r"^USER (.*)$", docker, re.MULTILINE)[-1] == "1000"  # a number, not root's
