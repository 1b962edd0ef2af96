"""Windows that begin with older events of one token each: ``recent_full``."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmtpp.api.history_reader import HistoryReader
from mmtpp.config.load import config_from_tree, with_values
from mmtpp.core.errors import ConfigError, DataError
from mmtpp.core.events import NO_FRAME, EventSequence
from mmtpp.core.forecasting.interval_forecasts import IntervalGrid
from mmtpp.core.representation.row import PackedRow
from mmtpp.core.representation.supervision import (
    AllTokens,
    EveryEvent,
    FollowingEvent,
    Supervision,
)
from mmtpp.core.representation.tokens import Modality
from mmtpp.data.from_config import build_sample_settings
from mmtpp.data.samples.assemble import Assembler
from mmtpp.data.samples.make_plan import make_plan
from mmtpp.data.samples.plan import samples_table
from mmtpp.data.samples.row_table import row_from_arrow
from mmtpp.data.samples.sample_settings import SampleSettings
from mmtpp.data.sources.columns import Columns
from mmtpp.data.store.store_settings import StoreSettings
from mmtpp.model.tokens.vocabulary import Vocabulary, train_tokenizer
from tests.helpers.manifests import sample_manifest
from tests.helpers.steps import encode_shard

NUM_EVENTS = 300
TOKENIZER = train_tokenizer(["some words of text"], size=300)
VOCABULARY = Vocabulary(TOKENIZER)
IDS = VOCABULARY.token_ids()
RNG = np.random.default_rng(0)
TIMES = np.cumsum(RNG.integers(1, 90, NUM_EVENTS)).astype(np.float64)
TYPES = RNG.integers(0, 5, NUM_EVENTS)
TEXTS = ["word " * (place % 40) + str(place) for place in range(NUM_EVENTS)]
SHADES = [place // 10 % 4 for place in range(NUM_EVENTS)]  # image of an event; 3 stands for none
SETTINGS = {
    "compression": {"strategy": "recent_full", "older_fraction": 0.25},
    "template": {"style": "dense", "images": "on_change", "time_bytes": 2},
    "window": {"max_tokens": 400, "overlap_fraction": 0.25},
}
OLDER_TOKENS = 100


def _image(shade: int) -> bytes | None:
    if shade == 3:
        return None
    file = io.BytesIO()
    Image.new("RGB", (56, 56), (80 * shade, 0, 0)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> StoreSettings:
    folder = tmp_path_factory.mktemp("older")
    (folder / "raw").mkdir()
    lines = ["s,t,k,x,i"]
    for place in range(NUM_EVENTS):
        shade = SHADES[place]
        name = "" if shade == 3 else f"{shade}.png"
        lines.append(f"s,{TIMES[place]},{TYPES[place]},{TEXTS[place]},{name}")
    lines += [f"short,{time},1,a,0.png" for time in range(4)]
    (folder / "raw" / "events.csv").write_text("\n".join(lines) + "\n")
    for shade in range(3):
        (folder / "raw" / f"{shade}.png").write_bytes(_image(shade) or b"")
    encode_shard(
        str(folder / "store"),
        ["events.csv"],
        tokenizer=TOKENIZER,
        source_uri=str(folder / "raw"),
        source_kind="columns",
        columns=Columns(time="t", sequence="s", type="k", text="x", image="i"),
    )
    return StoreSettings(str(folder / "store"), "x" * 64, 56)


def _settings(
    store: StoreSettings, supervision: Supervision, split: str = "all", **changes: object
) -> SampleSettings:
    manifest = sample_manifest()
    config = with_values(config_from_tree(SETTINGS), {"store.uri": store.data_uri, **changes})
    return build_sample_settings(
        config.sample_sections, manifest, split=split, supervision=supervision
    )


def _windows(settings: SampleSettings) -> list[tuple[dict, PackedRow]]:
    """Every window of the plan, with its row."""
    plan = make_plan(replace(settings, packed=False), IDS)
    table = Assembler(settings, IDS)(samples_table(plan, np.arange(plan.num_samples)))
    rows = [row_from_arrow(table, index, image_px=56) for index in range(len(table))]
    return list(zip(plan.windows.to_pylist(), rows, strict=True))


GRID = IntervalGrid.from_first_bytes(63, 68, num_bytes=2)
ALL = [AllTokens(), EveryEvent(("time", "joint")), FollowingEvent(("time",), GRID.first_bytes)]


@pytest.mark.parametrize("supervision", ALL, ids=lambda value: type(value).__name__)
def test_a_window_begins_with_as_many_older_events_as_fit(
    store: StoreSettings, supervision: Supervision
):
    settings = _settings(store, supervision)
    for window, row in _windows(settings):
        older = row.older
        assert older is not None
        first_full = window["start"] + len(older)
        # one token each in `dense`
        assert len(older) == min(first_full, OLDER_TOKENS)
        assert older.at.tolist() == list(range(len(older)))
        assert (row.input_ids[older.at] == IDS.similar_event).all()
        assert (row.input_ids == IDS.similar_event).sum() == len(older)
        assert window["num_tokens"] <= 400
        assert not row.may_be_label[older.at].any()


def test_every_event_but_the_first_is_a_label_once(store: StoreSettings):
    windows = _windows(_settings(store, AllTokens()))
    scored: dict[str, list[int]] = {}
    for window, row in windows:
        scored.setdefault(window["sequence_id"], []).extend(
            range(window["first_scored"], window["end"])
        )
        assert (row.modality[row.label_positions()] == Modality.TIME).sum() == 2 * (
            window["end"] - window["first_scored"]
        )
    assert scored == {"s": list(range(1, NUM_EVENTS)), "short": [1, 2, 3]}


def test_older_events_keep_their_content(store: StoreSettings):
    """Compared with the tokens that the same events have in full."""
    full = {}
    for window, row in _windows(_settings(store, AllTokens(), **{"compression.strategy": "none"})):
        for event in range(window["end"] - window["start"]):
            tokens = row.event == event
            ids, modality = row.input_ids[tokens], row.modality[tokens]
            full[window["sequence_id"], window["start"] + event] = (
                ids[modality == Modality.TIME].tolist() + ids[modality == Modality.TYPE].tolist(),
                ids[modality == Modality.TEXT].tolist(),
            )
    num_older = 0
    for window, row in _windows(_settings(store, AllTokens())):
        older = row.older
        assert older is not None
        texts = np.split(older.text_ids, older.text_offsets[1:-1])
        for index in range(len(older)):
            event = window["start"] + index
            codes, text = full[window["sequence_id"], event]
            assert older.code_ids[index].tolist() == codes
            shown = text if len(text) <= 32 else text[:16] + text[-16:]
            assert texts[index].tolist() == shown
            shade = SHADES[event]
            if shade == 3:
                assert older.frames[index] == NO_FRAME
            else:
                assert row.frames[older.frames[index], 0, 0].tolist() == [80 * shade, 0, 0]
        num_older += len(older)
    assert num_older > 500


def test_packed_windows_keep_their_older_events(store: StoreSettings):
    settings = replace(_settings(store, AllTokens()), max_tokens=3000, packed=True)
    plan = make_plan(replace(settings, max_tokens=400), IDS)
    windows = plan.with_single_windows([0, 3, 2])
    samples = samples_table(replace(windows, offsets=np.array([0, 3])), np.arange(1))
    assembler = Assembler(settings, IDS)
    packed = row_from_arrow(assembler(samples), 0, image_px=56)
    assert packed.older is not None
    alone = [
        row_from_arrow(
            assembler(samples_table(windows, np.array([window]))),
            0,
            image_px=56,
        )
        for window in range(3)
    ]
    starts = np.cumsum([0, *(len(row.input_ids) for row in alone)])
    parts = [row.older for row in alone if row.older is not None]
    at = [part.at + start for part, start in zip(parts, starts, strict=False)]
    assert packed.older.at.tolist() == np.concatenate(at).tolist()
    for name in ("code_ids", "text_ids"):
        expected = np.concatenate([getattr(part, name) for part in parts if len(part)])
        np.testing.assert_array_equal(getattr(packed.older, name), expected)
    ours = packed.frames[packed.older.frames]
    theirs = np.concatenate(
        [row.frames[part.frames] for row, part in zip(alone, parts, strict=True)]
    )
    has_image = packed.older.frames != NO_FRAME
    np.testing.assert_array_equal(ours[has_image], theirs[has_image])


def test_the_row_of_the_api_is_that_of_predict(store: StoreSettings, tmp_path: Path):
    settings = _settings(store, FollowingEvent(("time",), GRID.first_bytes))
    [row] = [row for window, row in _windows(settings) if window["sequence_id"] == "s"]
    config = config_from_tree(SETTINGS)
    reader = HistoryReader(config, VOCABULARY, settings.build_template(IDS), ["time"])
    for shade in range(3):
        (tmp_path / f"{shade}.png").write_bytes(_image(shade) or b"")
    images = tuple(None if shade == 3 else str(tmp_path / f"{shade}.png") for shade in SHADES)
    sequence = EventSequence("s", TIMES, TYPES.astype(np.int16), tuple(TEXTS), images)
    ours = reader(sequence, GRID).row
    np.testing.assert_array_equal(ours.input_ids, row.input_ids)
    assert ours.older is not None
    assert row.older is not None
    for name in ("at", "code_ids", "text_ids", "text_offsets"):
        np.testing.assert_array_equal(getattr(ours.older, name), getattr(row.older, name))
    has_image = row.older.frames != NO_FRAME
    np.testing.assert_array_equal(ours.older.frames != NO_FRAME, has_image)
    np.testing.assert_array_equal(
        ours.frames[ours.older.frames[has_image]], row.frames[row.older.frames[has_image]]
    )
    np.testing.assert_array_equal(ours.frames[ours.image_frame], row.frames[row.image_frame])


def test_the_row_before_a_question_keeps_the_older_events_that_it_sees(store: StoreSettings):
    windows = _windows(_settings(store, EveryEvent(("time", "joint"))))
    _, row = next((window, row) for window, row in windows if window["first_scored"] > 150)
    assert row.older is not None
    assert row.questions is not None
    before = row.before_question(len(row.questions.at) - 1, image_pad=IDS.image_pad)
    assert before.older is not None
    assert len(before.older) == len(row.older) > 0
    assert (before.input_ids[before.older.at] == IDS.similar_event).all()


def test_events_without_room_name_the_setting(store: StoreSettings):
    settings = _settings(
        store, AllTokens(), **{"window.max_tokens": 64, "window.long_events": "fail"}
    )
    with pytest.raises(DataError, match=r"older events take 16 \(compression\.older_fraction\)"):
        make_plan(settings, IDS)


def test_runs_are_refused(store: StoreSettings):
    with pytest.raises(ConfigError, match="not runs"):
        _settings(store, AllTokens(), **{"compression.run_encoding": "run_length"})


def test_other_strategies_have_no_older_events(store: StoreSettings):
    changed = _settings(store, AllTokens(), **{"compression.strategy": "none"})
    assert changed.older_tokens == 0
    assert all(row.older is None for _, row in _windows(changed))
