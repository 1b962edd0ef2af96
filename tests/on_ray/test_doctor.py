"""``mmtpp doctor`` with a real S3 server, MLflow server and Ray head."""

import pytest

from mmtpp.doctor import services
from mmtpp.storage.paths import list_files
from tests.on_ray.settings import make_config


def test_running_services_are_ok(store, stack, monkeypatch: pytest.MonkeyPatch):
    for name, value in stack.environment().items():
        monkeypatch.setenv(name, value)
    changes = {"run.storage_uri": "s3://mmtpp/t/doctor"}
    config = make_config(**changes, **{"tracking.uri": stack.mlflow_uri})
    findings = [
        *services.check_storage(config),
        services.check_mlflow(config),
        *services.check_ray(),
    ]
    assert [finding.status for finding in findings] == ["ok"] * len(findings), findings
    about = {finding.about: finding.what for finding in findings}
    assert set(about) == {"source.uri", "store.uri", "run.storage_uri", "mlflow", "ray"}
    assert "1 machines, 4 CPUs, 0 GPUs" in about["ray"]
    assert list_files("s3://mmtpp", "probe") == []


def test_findings_distinguish_wrong_keys_and_missing_buckets(
    cluster, stack, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
    config = make_config(**{"run.storage_uri": "s3://mmtpp/t/doctor"})
    *_, refused = services.check_storage(config)
    assert (refused.about, refused.status) == ("run.storage_uri", "failure")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", stack.secret_key)
    *_, missing = services.check_storage(make_config(**{"run.storage_uri": "s3://no-such/runs"}))
    assert "the bucket no-such does not exist" in missing.what
    assert "not-the-secret" not in refused.what + refused.fix
