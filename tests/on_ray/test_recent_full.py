"""Recent events in full and older ones of one token each, on a real cluster: both stages with
ZeRO-3 and LoRA, evaluation, predict and the API."""

import pytest

import mmtpp
from mmtpp.evaluate.evaluate import evaluate
from mmtpp.predict.predict import predict
from mmtpp.storage.manifest import load_manifest
from mmtpp.storage.parquet import read_table
from mmtpp.storage.paths import join, list_files
from mmtpp.train.launch import finetune, pretrain
from tests.helpers.job_settings import STAGE_TWO, STORE, make_config

# two stages of a third model; tests/parity/test_older_events.py is a fast version
pytestmark = pytest.mark.slow

RECENT = {
    "compression.strategy": "recent_full",
    "compression.run_encoding": "token",
    "compression.older_fraction": 0.25,
    "zero.stage": 3,
    "training.num_steps": 4,
    "training.validation_sequences": 0,
}


@pytest.fixture(scope="module")
def model(store) -> dict[str, object]:
    """Settings of a model of both stages, whose parameters two workers shard."""
    base = pretrain(make_config(**RECENT, **{"run.name": "recent"}))
    settings = {**RECENT, **STAGE_TWO, "model.path": base["model_uri"]}
    adapter = finetune(make_config(**settings, **{"run.name": "recent-lora"}))
    return {
        **RECENT,
        "model.path": base["model_uri"],
        "model.adapter": adapter["adapter_uri"],
    }


def test_every_event_is_forecast_once_and_futures_are_drawn(model):
    futures = {
        "evaluation.num_futures": 2,
        "evaluation.horizon": 70.0,
        "evaluation.origins_per_sequence": 3,
    }
    result = evaluate(make_config(**model, **futures))
    manifest = load_manifest(STORE)
    num_sequences = manifest.sequences_by_split["test"]
    expected = manifest.events_by_split["test"] - num_sequences
    targets = read_table(str(result["targets_uri"]))
    assert len(targets) == expected
    assert len(targets.group_by(["sequence_id", "position"]).aggregate([])) == expected
    drawn = read_table(str(result["targets_uri"]).replace("targets", "futures"))
    assert len(drawn) == num_sequences * 3 * 2


def test_predict_and_the_python_api_agree_where_older_events_matter(model):
    result = predict(make_config(**model, **{"source.uri": ""}))
    [file] = list_files(str(result["forecasts_uri"]), ".parquet")
    rows = {
        row["sequence_id"]: row
        for row in read_table(join(str(result["forecasts_uri"]), file.base_name)).to_pylist()
    }
    uri = str(model["model.adapter"])
    forecaster, short = (
        mmtpp.Forecaster.from_pretrained(uri, settings=changes)
        for changes in ({}, {"compression.older_fraction": 0.0})
    )
    contexts = []
    for sequence in list(forecaster.load_sequences(STORE))[:3]:
        forecast, row = forecaster.forecast(sequence), rows[sequence.sequence_id]
        assert forecast.median == pytest.approx(row["interval_q50"], rel=1e-4)
        assert forecast.type == row["type"]
        assert forecast.context == row["context"]
        contexts.append(forecast.context - short.forecast(sequence).context)
    assert max(contexts) > 0
