"""The calendar from a store's dates to the rows of training, of the predict job and of the API."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest

import mmtpp
from mmtpp.api.history_reader import HistoryReader
from mmtpp.config.load import config_from_tree, with_values
from mmtpp.config.schema import RunConfig
from mmtpp.core.errors import ConfigError
from mmtpp.core.forecasting.interval_forecasts import IntervalRange
from mmtpp.core.representation.row import PackedRow
from mmtpp.core.representation.supervision import AllTokens, EveryEvent, FollowingEvent
from mmtpp.core.representation.tokens import Modality
from mmtpp.data.from_config import build_sample_settings
from mmtpp.data.samples.assemble import Assembler
from mmtpp.data.samples.make_plan import make_plan
from mmtpp.data.samples.plan import samples_table
from mmtpp.data.samples.row_table import row_from_arrow
from mmtpp.data.samples.sample_settings import SampleSettings
from mmtpp.data.sources.columns import Columns
from mmtpp.inspect.dataset import load
from mmtpp.inspect.measure import measure
from mmtpp.model.folders.record import TrainedTasks
from mmtpp.model.tokens.vocabulary import Vocabulary, train_tokenizer
from tests.helpers.manifests import sample_manifest
from tests.helpers.steps import encode_shard

TOKENIZER = train_tokenizer(["some words of text"], size=300)
VOCABULARY = Vocabulary(TOKENIZER)
IDS = VOCABULARY.token_ids()
COLUMNS = {"time": "t", "sequence": "s", "text": "x"}
# Tuesday and Wednesday; on the clock of New York 5 hours before
DATES = ("2024-01-02 08:15", "2024-01-02 09:45", "2024-01-02 23:30", "2024-01-03 04:00")
SETTINGS = {
    "compression": {"strategy": "none"},
    "template": {
        "style": "dense",
        "images": "none",
        "time_bytes": 2,
        "calendar": "minute",
        "time_zone": "America/New_York",
    },
    "window": {"max_tokens": 512},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Source and store of four sequences with the same four dates and different texts."""
    folder = tmp_path_factory.mktemp("dates")
    (folder / "raw").mkdir()
    lines = [f"s{name},{date},some {name}" for name in range(4) for date in DATES]
    (folder / "raw" / "events.csv").write_text("\n".join(["s,t,x", *lines]) + "\n")
    encode_shard(
        str(folder / "store"),
        ["events.csv"],
        tokenizer=TOKENIZER,
        source_uri=str(folder / "raw"),
        source_kind="columns",
        columns=Columns(**COLUMNS),
        seconds_per_unit=60.0,
    )
    return folder


def _config(**template: object) -> RunConfig:
    return with_values(
        config_from_tree(SETTINGS), {f"template.{name}": value for name, value in template.items()}
    )


def _samples(folder: Path, config: RunConfig, *, are_dates: bool = True, **more: Any):
    manifest = sample_manifest(tick=0.0, seconds_per_unit=60.0, times_are_dates=are_dates)
    config = with_values(config, {"store.uri": str(folder / "store")})
    return build_sample_settings(config.sample_sections, manifest, split="train", **more)


def _rows(settings: SampleSettings) -> list[tuple[PackedRow, pa.Table]]:
    plan = make_plan(settings, IDS)
    table = Assembler(settings, IDS)(samples_table(plan, np.arange(plan.num_samples)))
    return [
        (row_from_arrow(table, index, image_px=56), table.slice(index, 1))
        for index in range(len(table))
    ]


def test_rows_carry_the_local_calendar_and_never_as_a_label(folder: Path):
    for row, table in _rows(_samples(folder, _config(), supervision=AllTokens())):
        ids, masked = row.input_ids, row.modality == Modality.MASKED
        for segment in range(len(table["sequences"][0].values)):
            inside = masked & (row.segment == segment)
            text = VOCABULARY.decode_text(ids[inside].tolist())
            assert text == "Tue03:15Tue04:45Tue18:30Tue23:00"
        assert not masked[row.label_positions()].any()
        assert len(ids) <= 512


@pytest.mark.parametrize("style", ["dense", "paper"])
def test_planned_tokens_are_the_written_tokens(folder: Path, style: str):
    config = _config(style=style)
    for supervision in (AllTokens(), EveryEvent(("time", "type", "joint"))):
        settings = replace(_samples(folder, config, supervision=supervision), packed=False)
        plan = make_plan(settings, IDS)
        planned = plan.windows["num_tokens"].to_pylist()
        written = [len(row.input_ids) for row, _ in _rows(settings)]
        if supervision == AllTokens():
            assert planned == written
        else:  # the last event is a target and no history
            assert all(map(int.__ge__, planned, written))


def test_the_row_of_the_api_is_the_row_of_the_predict_job(folder: Path):
    config = _config()
    grid = IntervalRange(1.0, 3000.0, 1.0).grid(num_bytes=2)
    settings = replace(
        _samples(folder, config, supervision=FollowingEvent(("time", "type"), grid.first_bytes)),
        packed=False,
    )
    template = settings.build_template(IDS)
    reader = HistoryReader(config, VOCABULARY, template, ["time", "type"])
    sequences = {
        sequence.sequence_id: sequence
        for sequence in mmtpp.load_sequences(
            str(folder / "raw"), columns=COLUMNS, seconds_per_unit=60.0
        )
    }
    rows = _rows(settings)
    assert len(rows) == 4
    for row, table in rows:
        [name] = table["sequences"][0].as_py()
        seen = reader(sequences[name], grid)
        assert seen.row.input_ids.tolist() == row.input_ids.tolist()
        assert seen.row.modality.tolist() == row.modality.tolist()
        assert seen.times.tolist() == table["event_time"][0].as_py()
        calendar = VOCABULARY.decode_text(row.input_ids[2:11].tolist())
        assert calendar.startswith("Tue03:15")


def test_without_a_calendar_the_order_of_samples_is_that_of_earlier_versions(folder: Path):
    plain = _samples(folder, _config(calendar="none"))
    assert replace(plain.template, time_zone="UTC", seconds_per_unit=1.0) != plain.template
    other = replace(plain, template=replace(plain.template, time_zone="UTC", seconds_per_unit=1.0))
    assert other.fingerprint == plain.fingerprint
    assert _samples(folder, _config()).fingerprint != plain.fingerprint
    in_utc = _samples(folder, _config(time_zone="UTC"))
    assert in_utc.fingerprint != _samples(folder, _config()).fingerprint


def test_times_that_are_numbers_are_refused(folder: Path, tmp_path: Path):
    with pytest.raises(ConfigError) as caught:
        _samples(folder, _config(), are_dates=False)
    message = str(caught.value)
    assert "these times are numbers" in message
    assert "template.calendar = minute" in message
    assert "source.columns.time" in message
    _samples(folder, _config(calendar="none"), are_dates=False)
    (tmp_path / "numbers.csv").write_text("s,t,x\na,1,one\na,2,two\n")
    columns = {"source.kind": "columns", "source.uri": str(tmp_path)}
    columns |= {f"source.columns.{name}": value for name, value in COLUMNS.items()}
    config = with_values(_config(), columns)
    data = load(config.source, config.split, config.model, max_files=0)
    with pytest.raises(ConfigError, match="these times are numbers"):
        measure(data, config.sample_sections, deltas=())
    trained_tasks = TrainedTasks(
        ("time",), IntervalRange(1.0, 9.0, 1.0), (0,), (), 1.0, trains_history=False
    )
    forecaster = mmtpp.Forecaster("model", _config(), trained_tasks, cast(Any, None))
    with pytest.raises(ConfigError, match="these times are numbers"):
        forecaster.load_sequences(str(tmp_path), columns=COLUMNS)


def test_an_expert_does_not_read_the_calendar_of_the_template(folder: Path):
    """So it accepts times that are numbers."""
    settings = _samples(folder, _config(), are_dates=False, reads_template=False)
    assert settings.split == "train"


def test_an_unknown_time_zone_is_refused():
    with pytest.raises(ConfigError, match="no time zone is named 'Europe/Nowhere'"):
        _config(time_zone="Europe/Nowhere")
