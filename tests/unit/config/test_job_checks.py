"""Settings of a job that contradict each other are refused before any machine is asked for."""

import pytest

from mmtpp.config.job_checks import check_prepare, check_training
from mmtpp.config.load import with_values
from mmtpp.config.schema import RunConfig
from mmtpp.core.errors import ConfigError

TINY = with_values(RunConfig(), {"model.preset": "tiny", "lora.rank": 0})


def test_a_fresh_tiny_with_a_budget_passes(caplog: pytest.LogCaptureFixture):
    check_training(with_values(TINY, {"training.max_flops": 1e9}))
    assert not caplog.records


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training.samples_per_step": 1, "training.num_workers": 2}, "at least one sample"),
        ({"training.min_workers": 3, "training.num_workers": 2}, "min_workers is larger"),
        ({"model.preset": "3b"}, "preset 3b needs the folder of its weights"),
        ({"model.adapter": "/adapter"}, "needs its base model and its rank"),
        ({"training.max_flops": 1e9, "model.path": "/model"}, "compares fresh models"),
        ({"training.max_flops": 1e9, "lora.rank": 4}, "compares fresh models"),
    ],
)
def test_contradictions_are_refused(changes: dict[str, object], message: str):
    with pytest.raises(ConfigError, match=message):
        check_training(with_values(TINY, changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source.columns.split": "fold"}, "set split.by = given"),
        ({"source.kind": "danmaku_qa", "split.by": "time"}, "questions are about whole sequences"),
        ({"source.kind": "taxi", "source.taxi.trips": "t.csv"}, "needs source.taxi.zones"),
        ({"source.uri": "/data", "store.uri": "/data/store"}, "is inside source.uri"),
        ({"source.uri": "/data", "store.uri": "file:///data/store"}, "is inside source.uri"),
        ({"source.uri": "file:///data/", "store.uri": "/data"}, "is inside source.uri"),
        ({"source.uri": "/data", "store.uri": "/other/../data/store"}, "is inside source.uri"),
        ({"source.uri": "/", "store.uri": "/store"}, "is inside source.uri"),
        ({"source.uri": "file:////data", "store.uri": "/data/store"}, "is inside source.uri"),
        ({"source.uri": "s3://b/a/", "store.uri": "s3://b/a/store"}, "is inside source.uri"),
    ],
)
def test_contradictions_of_source_split_and_store_are_refused(
    changes: dict[str, object], message: str
):
    locations = {"source.uri": "/raw", "store.uri": "/store"}
    with pytest.raises(ConfigError, match=message):
        check_prepare(with_values(RunConfig(), locations | changes))


@pytest.mark.parametrize(("path", "num_warnings"), [("", 1), ("/trained", 0)])
def test_lora_on_random_weights_is_warned_of(
    caplog: pytest.LogCaptureFixture, path: str, num_warnings: int
):
    check_training(with_values(TINY, {"lora.rank": 16, "model.path": path}))
    assert len(caplog.records) == num_warnings
    assert all("lora.rank = 16 adapts a new tiny model" in text for text in caplog.messages)


@pytest.mark.parametrize(
    ("source", "store"), [("/data", "/data-store"), ("s3://b/data", "gs://b/data/store")]
)
def test_a_store_beside_its_source_is_accepted(source: str, store: str):
    check_prepare(with_values(RunConfig(), {"source.uri": source, "store.uri": store}))
