"""``mmtpp doctor`` with a real S3 server, MLflow server and Ray head."""

import pytest

from mmtpp.config.schema import RunConfig
from mmtpp.doctor import services
from mmtpp.doctor.finding import Finding
from mmtpp.storage.paths import list_files
from tests.helpers.job_settings import make_config


def _check_storage(config: RunConfig) -> list[Finding]:
    findings = services.check_storage(
        source_uri=config.source.uri, store_uri=config.store.uri, runs_uri=config.run.storage_uri
    )
    return list(findings)


def test_running_services_are_ok(store, stack, monkeypatch: pytest.MonkeyPatch):
    for name, value in stack.environment().items():
        monkeypatch.setenv(name, value)
    changes = {"run.storage_uri": "s3://mmtpp/t/doctor"}
    config = make_config(**changes, **{"tracking.uri": stack.mlflow_uri})
    findings = [
        *_check_storage(config),
        services.check_mlflow(config.tracking.uri),
        *services.check_ray(),
    ]
    assert [finding.status for finding in findings] == ["ok"] * len(findings), findings
    observed = {finding.subject: finding.observed for finding in findings}
    assert set(observed) == {"source.uri", "store.uri", "run.storage_uri", "mlflow", "ray"}
    assert "1 machines, 4 CPUs, 0 GPUs" in observed["ray"]
    assert list_files("s3://mmtpp", "probe") == []


def test_findings_distinguish_wrong_keys_and_missing_buckets(
    cluster, stack, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
    config = make_config(**{"run.storage_uri": "s3://mmtpp/t/doctor"})
    *_, refused = _check_storage(config)
    assert (refused.subject, refused.status) == ("run.storage_uri", "failure")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", stack.secret_key)
    *_, missing = _check_storage(make_config(**{"run.storage_uri": "s3://no-such/runs"}))
    assert "the bucket no-such does not exist" in missing.observed
    assert "not-the-secret" not in refused.observed + refused.fix
