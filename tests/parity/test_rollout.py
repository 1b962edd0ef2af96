"""Compare futures sampled on a cached history with forecasts without a cache."""

from dataclasses import replace

import numpy as np
import pytest

from mmtpp.core.events import NO_FRAME, Events
from mmtpp.core.forecasting.interval_forecasts import IntervalRange
from mmtpp.core.representation.branches import lay_out_branches
from mmtpp.core.representation.template import Template, TemplateSettings
from mmtpp.core.representation.type_words import words_of_types
from mmtpp.model.decoding.sampling import FutureSampler
from mmtpp.model.event_model import EventModel
from mmtpp.model.row_forecaster import RowForecaster
from tests.helpers.tiny_models import CELLS, batcher, tiny_backbone, tiny_vocabulary
from tests.parity.branched_rows import events_of, path_of, row_alone, row_of

VOCABULARY = tiny_vocabulary()
IDS = VOCABULARY.token_ids()
CODES = [0, 3, 5]
TYPE_IDS = VOCABULARY.type_ids(CODES)
# names of the types, of one to three tokens
WORDS = words_of_types(
    VOCABULARY.encode_texts([f"type {code}"[: 2 + code] for code in range(6)]), IDS.blank[-1]
)


def _with(events: Events, intervals: np.ndarray, types: np.ndarray) -> Events:
    """The events, followed by more events without text and image."""
    size = len(intervals)
    assert events.times is not None
    return Events(
        np.append(events.intervals, intervals),
        np.append(events.types, types),
        events.text_ids,
        np.append(events.text_offsets, np.full(size, events.text_offsets[-1])),
        np.append(events.frames, np.full(size, NO_FRAME, np.int32)),
        np.append(events.similar, np.zeros(size, np.bool_)),
        np.append(events.times, events.times[-1] + np.cumsum(intervals)),
    )


@pytest.mark.parametrize(
    ("style", "num_bytes", "joint", "calendar", "words"),
    [
        ("dense", 2, True, "none", ()),
        ("compact", 2, False, "none", ()),
        ("paper", 2, True, "none", ()),
        ("minimal", 4, False, "none", ()),
        ("dense", 2, True, "minute", ()),
        ("paper", 2, False, "hour", WORDS),
        ("dense", 2, True, "none", WORDS),
    ],
)
def test_a_sampled_event_has_the_likelihood_of_its_forecast(
    style: str, num_bytes: int, joint: bool, calendar: str, words: tuple[tuple[int, ...], ...]
):
    model = EventModel(tiny_backbone(VOCABULARY))
    settings = TemplateSettings(
        style,
        "on_change",
        image_tokens=CELLS,
        time_bytes=num_bytes,
        calendar=calendar,
        time_zone="Europe/Berlin",
        seconds_per_unit=3600.0,
        type_words=words,
    )
    template = Template(IDS, settings, has_questions=True)
    grid = IntervalRange(0.02, 5.0, 1e-6).grid(num_bytes=num_bytes)
    history = replace(
        events_of(6, seed=2),
        types=np.resize(np.array(CODES, np.int16), 6),
        similar=np.zeros(6, np.bool_),
    )
    laid = lay_out_branches(template, history, [6], tasks=["time"])
    before = row_alone(
        row_of([laid]), path_of(laid, int(laid.questions.at[0]))[: -1 - len(template.layout.turn)]
    )
    assert history.times is not None
    futures = FutureSampler(model, template, CODES, TYPE_IDS, grid, joint=joint)(
        batcher(VOCABULARY)(before),
        last_time=float(history.times[-1]),
        num_futures=3,
        horizon=1e9,
        max_events=4,
        rng=np.random.default_rng(0),
    )
    assert futures.intervals.shape == (3, 4)
    assert futures.is_within.all()
    assert len(np.unique(futures.intervals)) > 6  # the futures differ
    forecaster = RowForecaster(model, IDS, TYPE_IDS, grid)
    for future in range(3):
        events = _with(history, futures.intervals[future], futures.types[future])
        targets = [6, 7, 8, 9]
        # without the expansions' help for types: asked with the true time, as it was drawn
        asked = lay_out_branches(
            template,
            events,
            targets,
            tasks=["time", "joint" if joint else "type"],
            first_bytes=grid.first_bytes,
        )
        row = replace(
            row_of([asked]),
            questions=asked.questions,
            event=asked.tokens.event,
            may_be_label=asked.is_answer,
        )
        forecasts = forecaster(row, batcher(VOCABULARY)(row))
        types = forecasts.joint if joint else forecasts.type
        assert forecasts.time is not None
        assert types is not None
        for place in range(4):
            interval, kind = (
                futures.intervals[future, place],
                CODES.index(futures.types[future, place]),
            )
            step = np.searchsorted(grid.edges, interval, side="right") - 1
            mass = (
                forecasts.time.interval.mass[place, step]
                if interval
                else (forecasts.time.interval.zero[place])
            )
            expected = -np.log(mass) - types.log_probability[place, kind]
            assert futures.nll[future, place] == pytest.approx(expected, abs=2e-3)


def test_futures_end_at_the_horizon_or_at_the_maximum_number_of_events():
    model = EventModel(tiny_backbone(VOCABULARY))
    settings = TemplateSettings("dense", "none", image_tokens=CELLS, time_bytes=2)
    template = Template(IDS, settings, has_questions=True)
    grid = IntervalRange(0.5, 1.9, 1e-6).grid(num_bytes=2)
    history = replace(events_of(4, seed=2), similar=np.zeros(4, np.bool_))
    laid = lay_out_branches(template, history, [4], tasks=["time"])
    before = row_alone(row_of([laid]), path_of(laid, int(laid.questions.at[0]))[:-1])
    sampler = FutureSampler(model, template, CODES, TYPE_IDS, grid, joint=False)
    futures = sampler(
        batcher(VOCABULARY)(before),
        num_futures=8,
        horizon=3.0,
        max_events=50,
        rng=np.random.default_rng(1),
    )
    times = np.cumsum(futures.intervals, axis=1)
    assert ((times <= 3.0) == futures.is_within).all()
    assert futures.intervals.shape[1] < 50
    assert (times[:, -1] > 3.0).all()
    some = futures.intervals[futures.intervals > 0]
    assert some.min() >= grid.edges[1]
    assert some.max() <= grid.edges[-1]


class _MixedModel:
    """A mixed model that replaces the interval of the first future and keeps the types."""

    def __init__(self) -> None:
        self.events: list[tuple[np.ndarray, np.ndarray]] = []

    def mix_intervals(self, intervals: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        del rng
        return np.append(0.7, intervals[1:])

    def mix_types(self, probabilities: np.ndarray, intervals: np.ndarray) -> np.ndarray:
        assert intervals[0] == 0.7
        return probabilities

    def append(self, intervals: np.ndarray, type_codes: np.ndarray) -> None:
        self.events.append((intervals, type_codes))


def test_the_model_continues_with_the_intervals_of_the_mixed_model():
    model = EventModel(tiny_backbone(VOCABULARY))
    settings = TemplateSettings("dense", "none", image_tokens=CELLS, time_bytes=2)
    template = Template(IDS, settings, has_questions=True)
    grid = IntervalRange(0.02, 5.0, 1e-6).grid(num_bytes=2)
    history = replace(
        events_of(6, seed=2),
        types=np.resize(np.array(CODES, np.int16), 6),
        similar=np.zeros(6, np.bool_),
    )
    laid = lay_out_branches(template, history, [6], tasks=["time"])
    before = row_alone(
        row_of([laid]), path_of(laid, int(laid.questions.at[0]))[: -1 - len(template.layout.turn)]
    )
    mixed = _MixedModel()
    futures = FutureSampler(model, template, CODES, TYPE_IDS, grid, joint=True)(
        batcher(VOCABULARY)(before),
        num_futures=2,
        horizon=1e9,
        max_events=3,
        rng=np.random.default_rng(0),
        mixed=mixed,
    )
    assert futures.intervals[0].tolist() == [0.7] * 3
    assert np.stack([types for _, types in mixed.events], axis=1).tolist() == (
        futures.types.tolist()
    )
    assert np.isnan(futures.nll).all()
    events = _with(history, futures.intervals[0], futures.types[0])
    asked = lay_out_branches(
        template, events, [6, 7, 8], tasks=["time", "joint"], first_bytes=grid.first_bytes
    )
    row = replace(
        row_of([asked]),
        questions=asked.questions,
        event=asked.tokens.event,
        may_be_label=asked.is_answer,
    )
    joint = RowForecaster(model, IDS, TYPE_IDS, grid)(row, batcher(VOCABULARY)(row)).joint
    assert joint is not None
    assert futures.type_probabilities[0] == pytest.approx(np.exp(joint.log_probability), abs=2e-3)
