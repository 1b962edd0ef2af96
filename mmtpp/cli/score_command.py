"""``mmtpp score``: score events from standard input, and forecast what follows each of them."""

import argparse
import os
import sys
from functools import partial

from mmtpp.api.forecaster import Forecaster
from mmtpp.serve.build_live_model import MAX_SEQUENCES, build_live_model
from mmtpp.serve.event_log import IN_MEMORY, EventLog
from mmtpp.serve.live_events import MAX_TEXT
from mmtpp.serve.live_sequences import LiveSequences
from mmtpp.serve.score import Scorer

_READ_BYTES = 2**16


def add_arguments(score: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    score.description = (
        "Reads events as JSON lines: sequence, time (a number in the model's unit or a date), "
        "type, and perhaps text and key. Writes a JSON line for each: how probable the event was, "
        "and the forecast of the next event of its sequence; or why it was rejected."
    )
    score.add_argument("--model", required=True, metavar="URI", help="folder of a trained model")
    score.add_argument("--base", default="", metavar="URI", help="folder of an adapter's base")
    score.add_argument(
        "--expert", default="", metavar="URI", help="folder that combine wrote; default: none"
    )
    score.add_argument(
        "--state",
        default=IN_MEMORY,
        metavar="FILE",
        help="file that keeps the events, so that a later call continues the sequences; default: "
        "events are kept in memory",
    )


def run(options: argparse.Namespace) -> None:
    """Score the events; standard error says at the end how many were accepted and rejected.

    Raises:
        MmtppError: The model or the file of the state cannot be used.
    """
    forecaster = Forecaster.from_pretrained(options.model, base=options.base, expert=options.expert)
    log = EventLog(options.state)
    model = build_live_model(forecaster, max_sequences=MAX_SEQUENCES)
    score = Scorer(LiveSequences(log, model, max_text=MAX_TEXT))
    read = partial(os.read, sys.stdin.fileno(), _READ_BYTES)  # what has arrived, without waiting
    for answers in score.answer_lines(iter(read, b"")):
        sys.stdout.buffer.write(answers)
        sys.stdout.buffer.flush()
    counts = ", ".join(f"{name} {count:,}" for name, count in sorted(score.counts.items()))
    sys.stderr.write(f"events: {counts or 'none'}\n")
