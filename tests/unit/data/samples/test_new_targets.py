"""Samples of new targets: earlier events stay history, and older targets are replayed."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from mmtpp.core.errors import DataError
from mmtpp.core.representation.compression import Compression
from mmtpp.core.representation.supervision import AllTokens, EveryEvent
from mmtpp.core.representation.template import TemplateSettings
from mmtpp.core.training.sample_order import share_of_rank
from mmtpp.data.samples.assemble import Assembler
from mmtpp.data.samples.feed import rank_samples
from mmtpp.data.samples.make_plan import make_plan
from mmtpp.data.samples.plan import Plan, load_plan, samples_table
from mmtpp.data.samples.sample_settings import NewTargets, SampleSettings
from mmtpp.data.sources.columns import Columns
from mmtpp.data.store.store_settings import StoreSettings
from mmtpp.model.tokens.vocabulary import Vocabulary, train_tokenizer
from tests.helpers.steps import encode_shard
from tests.helpers.tables import write_rows

TOKENIZER = train_tokenizer(["some words of text"], size=300)
IDS = Vocabulary(TOKENIZER).token_ids()
NEW_FROM = 1000.0
# old and new events of each sequence: only old, both, only new, and one of each
NUM_EVENTS = {"a": (60, 0), "b": (70, 45), "c": (0, 30), "d": (1, 25), "e": (30, 1)}
Target = tuple[str, int]
"""Name of the sequence, and position of the event in it."""


def _times() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    times: dict[str, np.ndarray] = {}
    for name, (num_old, num_new) in NUM_EVENTS.items():
        old = NEW_FROM - np.cumsum(rng.integers(1, 9, num_old))[::-1]
        new = NEW_FROM + np.cumsum(np.append(0, rng.integers(1, 9, num_new)))[:num_new]
        times[name] = np.append(old, new)
    return times


TIMES = _times()
# the first event of a sequence has no interval, so it is no target
TARGETS = {(name, place) for name, times in TIMES.items() for place in range(1, len(times))}
NEW = {target for target in TARGETS if TIMES[target[0]][target[1]] >= NEW_FROM}
OLDER = TARGETS - NEW


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("new-targets")
    rng = np.random.default_rng(4)
    rows = [
        {"who": name, "t": time, "k": rng.integers(0, 3), "w": rng.choice(["some", "words of", ""])}
        for name, times in TIMES.items()
        for time in times.tolist()
    ]
    write_rows(folder / "raw" / "events.csv", rows)
    encode_shard(
        str(folder / "store"),
        ["events.csv"],
        tokenizer=TOKENIZER,
        source_uri=str(folder / "raw"),
        source_kind="columns",
        columns=Columns(time="t", sequence="who", type="k", text="w"),
    )
    return str(folder / "store")


def _settings(store: str, replay: float | None = 1.0, **changes: object) -> SampleSettings:
    settings = SampleSettings(
        store=StoreSettings(store, "x", 56, tick=1.0),
        compression=Compression("none"),
        template=TemplateSettings("minimal", images="none", image_tokens=4, time_bytes=2),
        max_tokens=300,
        overlap_fraction=0.0,
        time_from=None,
        time_to=None,
        split="train",
        max_sequences=0,
        targets_delta=0.0,
        packed=True,
        seed=0,
        supervision=EveryEvent(("time", "type", "joint")),
        new_targets=NewTargets(NEW_FROM, replay=replay),
    )
    return replace(settings, **changes)


def _windows(plan: Plan, samples: range) -> Iterator[dict]:
    rows = plan.windows.to_pylist()
    return (row for sample in samples for row in rows[slice(*plan.offsets[sample : sample + 2])])


def _targets(plan: Plan, samples: range) -> list[tuple[Target, int]]:
    """Targets of samples in order, each with the first position that it sees."""
    return sorted(
        ((window["sequence_id"], place), window["start"])
        for window in _windows(plan, samples)
        for place in range(window["first_scored"], window["end"])
    )


SHAPES = [
    {},
    {"overlap_fraction": 0.5},
    {"compression": Compression("temporal", delta=2.5)},
    {
        "compression": Compression("temporal", delta=2.5),
        "template": TemplateSettings(
            "minimal", images="none", image_tokens=4, time_bytes=2, run_encoding="run_length"
        ),
    },
    {"supervision": AllTokens()},
    {"max_tokens": 5000},
]


@pytest.mark.parametrize("changes", SHAPES)
def test_every_target_is_new_or_older_and_sees_the_history_of_a_training(store, changes):
    plan = make_plan(_settings(store, **changes), IDS)
    whole = make_plan(_settings(store, new_targets=None, **changes), IDS)
    history = dict(_targets(whole, range(whole.num_samples)))
    assert history.keys() == TARGETS
    new, older = range(plan.num_visited), range(plan.num_visited, plan.num_samples)
    assert _targets(plan, new) == [(target, history[target]) for target in sorted(NEW)]
    assert _targets(plan, older) == [(target, history[target]) for target in sorted(OLDER)]
    assert any(window["start"] < window["first_scored"] - 1 for window in _windows(plan, new))
    # in a window, no older target sees a new event
    assert all(
        TIMES[window["sequence_id"]][window["end"] - 1] < NEW_FROM
        for window in _windows(plan, older)
    )


@pytest.mark.parametrize("changes", SHAPES)
def test_the_tokens_of_windows_are_counted_as_in_a_training(store, changes):
    """Number of planned tokens that are not written: those of the last event, if any."""

    def unwritten(settings: SampleSettings) -> dict[tuple[str, int, int], int]:
        plan = make_plan(settings, IDS)
        rows = Assembler(settings, IDS)(samples_table(plan, np.arange(plan.num_samples)))
        lengths = [len(ids) for ids in rows["input_ids"].to_pylist()]
        return {
            (window["sequence_id"], window["start"], window["end"]): window["num_tokens"] - length
            for window, length in zip(plan.windows.to_pylist(), lengths, strict=True)
        }

    changes = {**changes, "packed": False}
    new = unwritten(_settings(store, replay=None, **changes))
    whole = unwritten(_settings(store, new_targets=None, **changes))
    assert new.keys() <= whole.keys()
    assert min(new.values()) >= 0
    if changes.get("compression") is None:  # the tokens of a recap are an upper bound
        assert new == {window: whole[window] for window in new}


def test_the_questions_of_a_window_are_about_its_targets_alone(store):
    settings = _settings(store, replay=None, packed=False)
    plan = make_plan(settings, IDS)
    rows = Assembler(settings, IDS)(samples_table(plan, np.arange(plan.num_samples)))
    asked = {
        (name, place + start)
        for [name], start, events in zip(
            rows["sequences"].to_pylist(),
            plan.windows["start"].to_pylist(),
            rows["question_event"].to_pylist(),
            strict=True,
        )
        for place in events
    }
    assert asked == NEW


@pytest.mark.parametrize(
    ("replay", "share"), [(0.0, 0.0), (0.5, 0.5), (1.0, 1.0), (100.0, len(OLDER) / len(NEW))]
)
def test_an_epoch_has_all_new_targets_and_a_share_of_older_ones(store, replay, share):
    plan = make_plan(_settings(store, replay), IDS)
    counts = plan.replay_metrics()
    assert counts["data/new_targets"] == len(NEW)
    assert counts["data/older_targets"] == len(OLDER)
    per_sample = len(OLDER) / plan.replay.num_older
    replayed = counts["data/replayed_targets_per_epoch"]
    assert replayed == pytest.approx(share * len(NEW), abs=per_sample / 2 + 1e-9)
    # on average over many epochs
    size, visited = plan.samples_per_epoch, plan.num_visited
    epochs = _order(plan, num_epochs=200).reshape(200, size)
    targets = [len(_targets(plan, range(index, index + 1))) for index in range(plan.num_samples)]
    drawn = [sum(targets[index] for index in epoch if index >= visited) for epoch in epochs]
    assert np.mean(drawn) == pytest.approx(replayed, rel=0.1)
    assert all(
        set(range(visited)) <= set(epoch) and len(set(epoch)) == size for epoch in epochs.tolist()
    )


def _order(plan: Plan, *, num_epochs: int, seed: int = 0, samples_per_step: int = 0) -> np.ndarray:
    per_step = samples_per_step or plan.samples_per_epoch
    num_steps = num_epochs * plan.samples_per_epoch // per_step
    return rank_samples(
        plan,
        seed=seed,
        first_step=0,
        end_step=num_steps,
        samples_per_step=per_step,
        rank=0,
        num_ranks=1,
    )


def test_the_order_is_that_of_seed_and_epoch_at_any_number_of_workers(store, tmp_path: Path):
    plan = make_plan(_settings(store, 0.5), IDS)
    assert 0 < plan.replay.num_drawn < plan.replay.num_older
    plan.save(str(tmp_path / "plan.parquet"))
    loaded = load_plan(str(tmp_path / "plan.parquet"))
    assert loaded.replay == plan.replay
    assert loaded.offsets.tolist() == plan.offsets.tolist()
    size, visited = plan.samples_per_epoch, plan.num_visited
    order = _order(plan, num_epochs=6)
    drawn = [frozenset(part[part >= visited].tolist()) for part in order.reshape(6, size)]
    assert {len(part) for part in drawn} == {plan.replay.num_drawn}
    assert len(set(drawn)) > 1
    assert _order(loaded, num_epochs=6).tolist() == order.tolist()
    assert _order(plan, num_epochs=6, seed=1).tolist() != order.tolist()
    by_three = _order(plan, num_epochs=6, samples_per_step=3)
    assert by_three.tolist() == order[: len(by_three)].tolist()
    for num_ranks in (2, 3):
        resumed = [
            rank_samples(
                loaded,
                seed=0,
                first_step=2,
                end_step=4,
                samples_per_step=3,
                rank=rank,
                num_ranks=num_ranks,
            )
            for rank in range(num_ranks)
        ]
        steps = order[6:12].reshape(2, 3)
        for rank, part in enumerate(resumed):
            shares = [share_of_rank(step, rank=rank, num_ranks=num_ranks) for step in steps]
            assert part.tolist() == np.concatenate(shares).tolist()


def test_a_plan_for_scoring_has_no_older_targets(store):
    plan = make_plan(_settings(store, replay=None), IDS)
    assert plan.replay.num_older == 0
    assert [target for target, _ in _targets(plan, range(plan.num_samples))] == sorted(NEW)


def test_without_older_events_none_is_replayed(store):
    settings = _settings(store, new_targets=NewTargets(0.0, replay=1.0))
    plan = make_plan(settings, IDS)
    assert [target for target, _ in _targets(plan, range(plan.num_samples))] == sorted(TARGETS)
    assert plan.samples_per_epoch == plan.num_visited == plan.num_samples
    assert plan.describe_replay().startswith(f"an epoch has {len(TARGETS)} new targets")


@pytest.mark.parametrize("changes", [{"new_targets": NewTargets(1e6, 1.0)}, {"time_to": NEW_FROM}])
def test_a_store_without_new_events_is_an_error(store, changes):
    with pytest.raises(DataError, match="no training event is new") as caught:
        make_plan(_settings(store, **changes), IDS)
    assert "update.new_from" in caught.value.setting


def test_a_plan_of_an_earlier_version_replays_nothing(store, tmp_path: Path):
    plan = make_plan(_settings(store, new_targets=None), IDS)
    plan.save(str(tmp_path / "plan.parquet"))
    table = pq.read_table(tmp_path / "plan.parquet")
    metadata = {k: v for k, v in table.schema.metadata.items() if not k.startswith(b"num_o")}
    metadata.pop(b"num_drawn")
    pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "old.parquet")
    assert load_plan(str(tmp_path / "old.parquet")).samples_per_epoch == plan.num_samples
