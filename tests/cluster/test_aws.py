"""`ray up ray_cluster.yaml` with a simulated EC2 and IAM, up to the first step over SSH."""

import ipaddress
import json
import re
import shutil
import socket
import urllib.request
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from botocore.exceptions import ClientError
from moto.server import ThreadedMotoServer
from ray.autoscaler._private import commands
from ray.autoscaler._private.providers import _get_node_provider
from ray.autoscaler.tags import (
    NODE_KIND_HEAD,
    NODE_KIND_WORKER,
    TAG_RAY_CLUSTER_NAME,
    TAG_RAY_LAUNCH_CONFIG,
    TAG_RAY_NODE_KIND,
    TAG_RAY_NODE_NAME,
    TAG_RAY_NODE_STATUS,
    TAG_RAY_USER_NODE_TYPE,
)

ROOT = Path(__file__).parents[2]
POLICIES = ROOT / "cluster" / "aws"
ACCOUNT = "123456789012"


class FakeNodeUpdater:
    """Replaces Ray's node updater, which connects over SSH, and records its arguments."""

    seen: list[dict[str, Any]] = []  # noqa: RUF012
    exitcode = 0

    def __init__(self, **arguments: Any) -> None:
        self.seen.append(arguments)

    def start(self) -> None: ...
    def join(self) -> None: ...


@pytest.fixture(scope="module")
def endpoint():
    """One server for all tests, because Ray caches its clients."""
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def aws(endpoint, monkeypatch, tmp_path):
    """A new AWS account with a network and the roles of cluster/aws."""
    request = urllib.request.Request(f"{endpoint}/moto-api/reset", method="POST")
    urllib.request.urlopen(request).close()
    connect = socket.socket.connect

    def connect_on_loopback(self, address):
        if (
            isinstance(address, tuple)
            and not ipaddress.ip_address(socket.gethostbyname(address[0])).is_loopback
        ):
            raise AssertionError(f"the test connects to {address}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect_on_loopback)
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "none")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "none")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-west-2")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))  # Ray writes the new SSH key there
    monkeypatch.setattr(commands, "NodeUpdaterThread", FakeNodeUpdater)
    monkeypatch.setattr(FakeNodeUpdater, "seen", [])
    iam = boto3.client("iam")
    for name in ("mmtpp-ray-head", "mmtpp-ray-worker"):
        iam.create_role(
            RoleName=name, AssumeRolePolicyDocument=(POLICIES / "trust.json").read_text()
        )
        iam.create_instance_profile(InstanceProfileName=name)
        iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)


@pytest.fixture
def cluster_file(aws, tmp_path, monkeypatch):
    """The file with an existing image in place of the one to change."""
    image = boto3.client("ec2").describe_images(Owners=["099720109477", "amazon"])["Images"][0]
    text = (ROOT / "ray_cluster.yaml").read_text()
    changed = text.replace("ami-0123456789abcdef0", image["ImageId"])
    assert changed.count(image["ImageId"]) == text.count("# CHANGE: Deep") + text.count(
        "# CHANGE, as above"
    )
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("0" * 64)
    project = tmp_path / "project"
    project.mkdir()
    shutil.copy(ROOT / "constraints.txt", project)
    monkeypatch.chdir(project)
    file = project / "ray_cluster.yaml"
    file.write_text(changed)
    return file


def _instances(*states: str) -> list[dict[str, Any]]:
    reservations = boto3.client("ec2").describe_instances(
        Filters=[{"Name": "instance-state-name", "Values": list(states)}]
    )
    return [instance for group in reservations["Reservations"] for instance in group["Instances"]]


def _tags(instance: dict[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in instance["Tags"]}


def _up(file: Path) -> dict[str, Any]:
    """Run ``ray up --yes``; returns the configuration that it copies to the head."""
    commands.create_or_update_cluster(
        str(file),
        override_min_workers=None,
        override_max_workers=None,
        no_restart=False,
        restart_only=False,
        yes=True,
        override_cluster_name=None,
        no_config_cache=True,
        redirect_command_output=None,
        use_login_shells=True,
    )
    (updater,) = FakeNodeUpdater.seen
    remote = updater["file_mounts"]["~/ray_bootstrap_config.yaml"]
    return json.loads(Path(remote).read_text())


def test_up_starts_only_a_head_without_open_ports(cluster_file, tmp_path):
    _up(cluster_file)
    (head,) = _instances("pending", "running")
    declared = yaml.safe_load(cluster_file.read_text())
    node = declared["available_node_types"]["head"]["node_config"]
    assert node["InstanceType"] == head["InstanceType"]
    assert node["ImageId"] == head["ImageId"]
    assert head["IamInstanceProfile"]["Arn"].endswith(":instance-profile/mmtpp-ray-head")
    assert node["MetadataOptions"]["HttpTokens"] == "required"
    tags = _tags(head)
    assert tags[TAG_RAY_CLUSTER_NAME] == "mmtpp"
    assert (tags[TAG_RAY_NODE_KIND], tags[TAG_RAY_USER_NODE_TYPE]) == (NODE_KIND_HEAD, "head")
    # any address may connect to SSH, which requires the key; all other ports only the cluster
    (group,) = boto3.client("ec2").describe_security_groups(
        GroupIds=[group["GroupId"] for group in head["SecurityGroups"]]
    )["SecurityGroups"]
    assert group["GroupName"] == "mmtpp-ray"
    opened = {
        (rule.get("FromPort"), rule.get("ToPort"), rule["IpProtocol"]): (
            [block["CidrIp"] for block in rule["IpRanges"]],
            [pair["GroupId"] for pair in rule["UserIdGroupPairs"]],
        )
        for rule in group["IpPermissions"]
    }
    ssh = opened.pop((22, 22, "tcp"))
    assert ssh[1] == []
    assert list(opened.values()) == [([], [group["GroupId"]])]
    (key,) = (tmp_path / ".ssh").iterdir()
    assert key.stat().st_mode & 0o077 == 0
    (updater,) = FakeNodeUpdater.seen
    assert "~/.ray/auth_token" in updater["file_mounts"]
    assert any("RAY_AUTH_MODE=token" in command for command in updater["setup_commands"])
    assert any("constraints.txt" in command for command in updater["setup_commands"])
    assert any("RAY_JOB_STOP_WAIT_TIME_S" in command for command in updater["ray_start_commands"])


def test_a_second_up_keeps_the_head(cluster_file):
    _up(cluster_file)
    (before,) = _instances("pending", "running")
    FakeNodeUpdater.seen.clear()
    _up(cluster_file)
    (after,) = _instances("pending", "running")
    assert after["InstanceId"] == before["InstanceId"]


def test_the_head_launches_and_terminates_workers_of_every_group(cluster_file):
    """Uses the configuration that ``ray up`` copies to the head, and the autoscaler's calls."""
    config = _up(cluster_file)
    provider = _get_node_provider(config["provider"], config["cluster_name"])
    kinds = {name: kind for name, kind in config["available_node_types"].items() if name != "head"}
    for name, kind in kinds.items():
        tags = {
            TAG_RAY_NODE_KIND: NODE_KIND_WORKER,
            TAG_RAY_USER_NODE_TYPE: name,
            TAG_RAY_NODE_NAME: f"ray-mmtpp-{name}",
            TAG_RAY_NODE_STATUS: "uninitialized",
            TAG_RAY_LAUNCH_CONFIG: "0" * 40,
        }
        provider.create_node_with_resources_and_labels(
            dict(kind["node_config"]), tags, 1, kind["resources"], kind["labels"]
        )
    workers = [
        instance
        for instance in _instances("pending", "running")
        if _tags(instance)[TAG_RAY_NODE_KIND] == NODE_KIND_WORKER
    ]
    assert len(workers) == len(kinds)
    for worker in workers:
        kind = kinds[_tags(worker)[TAG_RAY_USER_NODE_TYPE]]
        assert kind["node_config"]["InstanceType"] == worker["InstanceType"]
        assert worker["IamInstanceProfile"]["Arn"].endswith(":instance-profile/mmtpp-ray-worker")
        spot = "InstanceMarketOptions" in kind["node_config"]
        assert spot == (worker.get("InstanceLifecycle") == "spot")
        assert _tags(worker)[TAG_RAY_CLUSTER_NAME] == "mmtpp"
    # the autoscaler reads the number of GPUs from EC2, not from the file
    gpus = {name: kind["resources"].get("GPU", 0) for name, kind in kinds.items()}
    assert gpus == {"cpu_data": 0, "gpu_l4": 4, "gpu_l4_spot": 4, "gpu_a100": 8}
    assert all(kind["resources"]["CPU"] > 0 for kind in kinds.values())
    listed = provider.non_terminated_nodes({TAG_RAY_NODE_KIND: NODE_KIND_WORKER})
    assert {worker["InstanceId"] for worker in workers} == set(listed)
    provider.terminate_nodes(listed)
    (remaining,) = _instances("pending", "running")
    assert _tags(remaining)[TAG_RAY_NODE_KIND] == NODE_KIND_HEAD


def _policy(name: str, **values: str) -> str:
    text = (POLICIES / name).read_text()
    for key, value in {"ACCOUNT": ACCOUNT, "REGION": "us-west-2", **values}.items():
        text = text.replace(key, value)
    assert not re.search(r"BUCKET|ACCOUNT|REGION", text)
    return text


@pytest.fixture
def user_with(aws):
    """A function that creates a user with one policy of cluster/aws and returns a session."""

    def create(name: str, **values: str):
        iam = boto3.client("iam")
        boto3.client("s3").create_bucket(
            Bucket="events", CreateBucketConfiguration={"LocationConstraint": "us-west-2"}
        )
        boto3.client("s3").create_bucket(
            Bucket="other", CreateBucketConfiguration={"LocationConstraint": "us-west-2"}
        )
        iam.create_user(UserName="it")
        iam.put_user_policy(UserName="it", PolicyName="it", PolicyDocument=_policy(name, **values))
        key = iam.create_access_key(UserName="it")["AccessKey"]
        return boto3.Session(key["AccessKeyId"], key["SecretAccessKey"], region_name="us-west-2")

    return create


@pytest.fixture
def enforce(endpoint):
    """A function that makes the account check permissions until the test ends."""

    def check_after(calls: bytes) -> None:
        url, plain = f"{endpoint}/moto-api/reset-auth", {"Content-Type": "text/plain"}
        request = urllib.request.Request(url, calls, plain, method="POST")
        urllib.request.urlopen(request).close()

    yield lambda: check_after(b"0")
    check_after(b"inf")


def _is_denied(call, **arguments: Any) -> bool:
    try:
        call(**arguments)
    except ClientError as error:
        return error.response["Error"]["Code"] in ("AccessDenied", "UnauthorizedOperation")
    return False


def test_a_worker_may_access_only_its_bucket(user_with, enforce):
    session = user_with("bucket.json", BUCKET="events")
    s3 = session.client("s3")
    enforce()
    s3.put_object(Bucket="events", Key="a/b", Body=b"x")
    assert s3.get_object(Bucket="events", Key="a/b")["Body"].read() == b"x"
    assert s3.list_objects_v2(Bucket="events", Prefix="a")["KeyCount"] == 1
    upload = s3.create_multipart_upload(Bucket="events", Key="large")
    s3.abort_multipart_upload(Bucket="events", Key="large", UploadId=upload["UploadId"])
    s3.delete_object(Bucket="events", Key="a/b")
    assert _is_denied(s3.put_object, Bucket="other", Key="a", Body=b"x")
    assert _is_denied(s3.list_objects_v2, Bucket="other")
    assert _is_denied(s3.delete_bucket, Bucket="events")
    assert _is_denied(s3.list_buckets)
    assert _is_denied(session.client("ec2").describe_instances)
    assert _is_denied(session.client("iam").list_users)


def test_the_head_may_only_manage_machines(user_with, enforce):
    session = user_with("head.json")
    ec2 = session.client("ec2")
    enforce()
    ec2.describe_instances()
    ec2.describe_subnets()
    assert _is_denied(ec2.create_security_group, GroupName="x", Description="x")
    assert _is_denied(session.client("iam").create_user, UserName="x")
    assert _is_denied(session.client("s3").list_objects_v2, Bucket="events")
