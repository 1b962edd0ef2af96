"""``jobs/stream.py``, killed at random moments while events arrive: each is landed exactly once."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.helpers.kafka_brokers import NUM_PARTITIONS, Broker, running_broker
from tests.helpers.streams import (
    add_file,
    as_assignments,
    event,
    rows_of,
    stream_settings,
    times_of,
)

ROOT = Path(__file__).parents[2]
NUM_BATCHES, BATCH, NUM_KILLS = 60, 20, 8
OLD_S = 2000  # how much too late the late events are
SETTINGS = {
    "stream.allowed_lateness_seconds": 50,
    "stream.idle_release_seconds": 4.0,
    "stream.stop_when_idle_seconds": 5.0,
    "stream.commit_seconds": 0.02,
    "source.max_rejected_fraction": 0.1,
}


def _batches(seed: int) -> list[list[dict]]:
    """Batches of events that are out of order by less than 50 s, with some that are far too old,
    and some that are no events."""
    rng = random.Random(seed)
    batches = []
    for number in range(NUM_BATCHES):
        rows = []
        for place in range(BATCH):
            at: object = 100.0 * number + rng.uniform(0, 45)
            kind = "event"
            if number > NUM_BATCHES // 2 and place == 0:
                at, kind = 100.0 * number - OLD_S, "old"
            elif number % 10 == 5 and place == 1:
                at, kind = "soon", "bad"
            rows.append(event(f"s{rng.randrange(5)}", at, f"{kind} {number} {place}"))
        batches.append(rows)
    return batches


@contextmanager
def _job(settings: dict) -> Iterator[subprocess.Popen]:
    process = subprocess.Popen(
        [sys.executable, "jobs/stream.py", *as_assignments(settings)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT) + os.pathsep + os.environ.get("PYTHONPATH", "")},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _run_with_kills(settings: dict, send: Callable[[int], None], seed: int) -> dict:
    """Run jobs one after the other, each killed at a random moment, while batches arrive.

    Returns:
        The report of the last job, which ends by itself.
    """
    rng = random.Random(seed)
    next_batch = 0
    for _ in range(NUM_KILLS):
        with _job(settings) as process:
            end = time.monotonic() + rng.uniform(1.0, 3.0)
            while time.monotonic() < end:
                if next_batch < NUM_BATCHES - 5:
                    send(next_batch)
                    next_batch += 1
                time.sleep(rng.uniform(0.05, 0.25))
            assert process.poll() is None, process.communicate()[1]
            process.send_signal(signal.SIGKILL)
    for number in range(next_batch, NUM_BATCHES):
        send(number)
    with _job(settings) as process:
        report, log = process.communicate(timeout=120)
        assert process.returncode == 0, log
    return json.loads(report)


def _check(output: Path, batches: list[list[dict]], report: dict) -> None:
    """Check that all events are landed once, in order, and that only old ones are late."""
    landed, late = rows_of(output), rows_of(output, "late")
    rejected = rows_of(output, "rejected")
    sent = [row for rows in batches for row in rows]
    events = {row["note"]: row for row in sent if not row["note"].startswith("bad")}
    assert sorted(row["text"] for row in [*landed, *late]) == sorted(events)
    for row in [*landed, *late]:
        original = events[row["text"]]
        assert (row["sequence"], row["time"]) == (original["who"], original["at"])
    for times in times_of(output).values():
        assert times == sorted(times)
    assert late
    assert all(row["text"].startswith("old") for row in late)
    assert sorted(json.loads(row["record"])["note"] for row in rejected) == sorted(
        row["note"] for row in sent if row["note"].startswith("bad")
    )
    assert report["events_read"] == len(sent)
    assert report["events_landed"] == len(landed)
    assert (report["events_late"], report["events_held"]) == (len(late), 0)
    assert len(list((output / "commits").glob("*.json"))) > NUM_KILLS


@pytest.mark.timeout(300)
def test_a_killed_job_lands_the_files_of_a_folder_once(tmp_path: Path):
    batches = _batches(1)
    incoming, output = tmp_path / "incoming", tmp_path / "landed"
    incoming.mkdir()

    def send(number: int) -> None:
        add_file(incoming, f"{number % 7}-{number}.jsonl", batches[number])  # not in order of time

    report = _run_with_kills(stream_settings(incoming, output, **SETTINGS), send, 1)
    _check(output, batches, report)


@pytest.fixture
def broker() -> Iterator[Broker]:
    with running_broker() as running:
        yield running


@pytest.mark.timeout(300)
@pytest.mark.slow  # the same kills as with a folder
def test_a_killed_job_lands_the_messages_of_kafka_once(tmp_path: Path, broker: Broker):
    batches = _batches(2)

    def send(number: int) -> None:
        for place, row in enumerate(batches[number]):
            broker.send_event("events", row, partition=place % NUM_PARTITIONS)
        broker.flush()

    send(0)  # creates the topic
    settings = stream_settings(broker.uri("events"), tmp_path / "landed", **SETTINGS)
    report = _run_with_kills(settings, lambda number: send(number) if number else None, 2)
    _check(tmp_path / "landed", batches, report)


def test_sigterm_ends_the_job_with_its_report(tmp_path: Path):
    incoming, output = tmp_path / "incoming", tmp_path / "landed"
    add_file(incoming, "a.jsonl", [event("x", 1), event("x", 2)])
    settings = stream_settings(incoming, output, **{"stream.stop_when_idle_seconds": 0})
    with _job(settings) as process:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not list(output.glob("events/*")):
            time.sleep(0.05)
        process.terminate()
        report, log = process.communicate(timeout=60)
    assert process.returncode == 0
    assert json.loads(report)["ended"] == "stopped"
    assert json.loads(report)["events_landed"] == 2
    assert "SIGTERM received: the job ends after a commit" in log
    assert "commit 1: 2 landed, 0 late, 0 rejected, 0 held, 0 undelivered; up to time 2.0" in log
    assert "python jobs/prepare.py --set source.kind=columns" in log
