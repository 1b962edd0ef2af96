"""Checks that hold for every model of densities on a cluster."""

import pytest

import mmtpp
from mmtpp.predict.predict import predict
from mmtpp.storage.parquet import read_table
from mmtpp.storage.paths import join, list_files
from tests.helpers.job_settings import STORE, make_config


def check_predict_and_the_api_agree(model_uri: str, **settings: object) -> None:
    """Forecast every sequence by the job and some in this process, futures too."""
    result = predict(make_config(**settings, **{"model.path": model_uri, "source.uri": ""}))
    [file] = list_files(str(result["forecasts_uri"]), ".parquet")
    rows = {
        row["sequence_id"]: row
        for row in read_table(join(str(result["forecasts_uri"]), file.base_name)).to_pylist()
    }
    forecaster = mmtpp.Forecaster.from_pretrained(model_uri)
    sequences = forecaster.load_sequences(STORE)
    assert len(rows) == len(sequences) == result["forecasts"]
    for sequence in list(sequences)[:3]:
        forecast = forecaster.forecast(sequence, futures=4, horizon=30.0)
        row = rows[sequence.sequence_id]
        assert row["interval_q50"] == pytest.approx(forecast.median, rel=1e-4)
        assert row["type"] == forecast.type
        assert row["context"] == row["events"] == len(sequence)
        assert forecast.futures is not None
        assert len(forecast.futures) == 4
