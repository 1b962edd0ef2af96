"""The Kubernetes manifests and the image: valid, closed, and with the pinned versions."""

import importlib
import re
from importlib.metadata import version
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from pydantic import ValidationError
from ray.serve.schema import ServeDeploySchema

from mmtpp.config.load import load_config
from mmtpp.serve.app import build
from mmtpp.serve.settings import ServeSettings
from tests.unit.project.kuberay_types import RayCluster, RayJob, RayService

CLUSTER = Path(__file__).parents[3] / "cluster"
KUBERNETES = "1.33.0"  # clouds offer the newest version late


@pytest.fixture(scope="module")
def manifest():
    return yaml.safe_load((CLUSTER / "kuberay" / "raycluster.yaml").read_text())


@pytest.fixture
def cluster(manifest):
    return RayCluster.model_validate(manifest)


def _pods(cluster: RayCluster) -> dict[str, dict]:
    groups = {group.groupName: group.template for group in cluster.spec.workerGroupSpecs}
    return {"head": cluster.spec.headGroupSpec.template, **groups}


def test_a_field_unknown_to_kuberay_is_refused(manifest):
    wrong = {**manifest, "spec": {**manifest["spec"], "enableAutoscaling": True}}
    with pytest.raises(ValidationError, match="enableAutoscaling"):
        RayCluster.model_validate(wrong)


def test_kubernetes_accepts_the_pods(cluster):
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


def test_pods_start_on_demand_and_the_head_runs_no_work(cluster):
    spec = cluster.spec
    assert spec.enableInTreeAutoscaling
    assert spec.autoscalerOptions.version == "v2"
    assert spec.headGroupSpec.rayStartParams["num-cpus"] == "0"
    for group in spec.workerGroupSpecs:
        assert 0 == group.minReplicas == group.replicas < group.maxReplicas
        assert group.template["spec"]["restartPolicy"] == "Never"  # the autoscaler replaces it


def test_a_terminated_pod_has_time_for_a_checkpoint(cluster):
    for name, template in _pods(cluster).items():
        if name.startswith("train"):
            [container] = template["spec"]["containers"]
            values = {variable["name"]: variable.get("value") for variable in container["env"]}
            drained = float(values["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"])
            assert 30 < drained < template["spec"]["terminationGracePeriodSeconds"]


def test_other_pods_reach_only_the_job_server():
    policy = yaml.safe_load((CLUSTER / "kuberay" / "networkpolicy.yaml").read_text())
    kubernetes_validate.validate(policy, KUBERNETES, strict=True)
    same_cluster, open_to_all = policy["spec"]["ingress"]
    assert policy["spec"]["podSelector"] == same_cluster["from"][0]["podSelector"]
    assert "ports" not in same_cluster
    assert [port["port"] for port in open_to_all["ports"]] == [8265]
    assert "from" not in open_to_all


def test_data_and_training_run_on_separate_machines(cluster):
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


def test_kuberay_accepts_the_redis_block_when_uncommented():
    text = (CLUSTER / "kuberay" / "raycluster.yaml").read_text()
    block = re.search(r"  # gcsFaultToleranceOptions:\n(  #   .*\n)+", text)
    assert block
    uncommented = text.replace(block[0], block[0].replace("  # ", "  "))
    manifest = RayCluster.model_validate(yaml.safe_load(uncommented))
    options = manifest.spec.gcsFaultToleranceOptions
    assert options
    assert options.redisAddress.endswith(":6379")
    assert options.redisPassword
    assert not options.redisPassword.value  # the value comes from a secret


def test_the_cluster_needs_a_token_and_the_files_hold_no_secret(cluster):
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


def test_the_job_runs_on_that_cluster_and_its_settings_exist(cluster):
    job = RayJob.model_validate(yaml.safe_load((CLUSTER / "kuberay" / "rayjob.yaml").read_text()))
    assert job.spec.clusterSelector == {"ray.io/cluster": cluster.metadata.name}
    words = job.spec.entrypoint.replace("/home/ray/mmtpp/", "").split()
    assert (CLUSTER.parent / words[1]).is_file()
    settings = [words[place + 1] for place, word in enumerate(words) if word == "--set"]
    config = load_config(CLUSTER.parent / words[words.index("--config") + 1], settings)
    for labels in (config.store.machine_labels, config.training.machine_labels):
        groups = [
            group
            for group in cluster.spec.workerGroupSpecs
            if labels.items() <= group.labels.items()
        ]
        assert labels
        assert len(groups) == 1


def test_the_image_has_the_pinned_ray_and_the_files_of_the_jobs(cluster):
    docker = (CLUSTER / "Dockerfile").read_text()
    assert f"FROM rayproject/ray:{version('ray')}-py311" in docker
    assert cluster.spec.rayVersion == version("ray")
    copied = [
        name
        for line in re.findall(r"^COPY --chown=ray (.*)$", docker, re.MULTILINE)
        for name in line.split()[:-1]
    ]
    assert {"mmtpp", "tune", "jobs", "constraints.txt", "pyproject.toml"} <= set(copied)
    assert all((CLUSTER.parent / name).exists() for name in copied)
    assert "--constraint constraints.txt" in docker
    assert re.findall(r"^USER (.*)$", docker, re.MULTILINE)[-1] == "1000"  # a numeric id, not root


def test_the_service_keeps_its_events_on_a_volume():
    text = (CLUSTER / "kuberay" / "rayservice.yaml").read_text()
    claim, manifest = yaml.safe_load_all(text)
    kubernetes_validate.validate(claim, KUBERNETES, strict=True)
    service = RayService.model_validate(manifest).spec
    assert service.upgradeStrategy
    assert service.upgradeStrategy.type == "None"  # YAML reads the word as a text
    cluster = service.rayClusterConfig
    assert cluster.headGroupSpec.rayStartParams["num-cpus"] == "0"
    [group] = cluster.workerGroupSpecs
    assert (group.minReplicas, group.replicas, group.maxReplicas) == (1, 1, 1)
    for name, template in (("head", cluster.headGroupSpec.template), ("live", group.template)):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, **template}
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)
    [container] = group.template["spec"]["containers"]
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in group.template["spec"]["volumes"]}
    state = volumes[mounts["/state"]]["persistentVolumeClaim"]["claimName"]
    assert state == claim["metadata"]["name"]
    settings = _serve_settings(yaml.safe_load(service.serveConfigV2))
    assert settings.state_folder in mounts
    assert Path(settings.token_file).parent.as_posix() in mounts


def _serve_settings(config: dict) -> ServeSettings:
    """The arguments of the application of a Serve configuration, after Serve's own checks."""
    [application] = ServeDeploySchema.model_validate(config).applications
    module, _, function = application.import_path.partition(":")
    assert getattr(importlib.import_module(module), function) is build
    return ServeSettings.model_validate(application.args)


def test_the_serve_configuration_listens_on_loopback():
    config = yaml.safe_load((CLUSTER / "serve.yaml").read_text())
    assert config["http_options"]["host"] == "127.0.0.1"
    settings = _serve_settings(config)
    assert settings.num_shards == len({settings.log_path(index) for index in range(2)})
    with pytest.raises(ValidationError, match="shards"):
        ServeSettings.model_validate({"model_uri": "m", "shards": 2})
