"""History and branches compared with one forward pass per target, the method of the published code.

    python -m benchmarks.forecast        make bench-forecast

The tiny model reads the first 301 comments of real danmaku videos. One pass scores the time and the
type of all 300 targets, exactly or as whole distributions. The alternative is one pass over the
history for every target; it is measured at evenly spaced targets. Both run in one process, with the
same model and code. The benchmark also counts the operations of stage 2 per supervised target, with
branches and with one target per sequence.
"""

import os
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

os.environ.setdefault("RAY_AUTH_MODE", "token")

from benchmarks.measure import finish, machine, table
from benchmarks.quality.results import BUDGET
from benchmarks.quality.run import WORK, configuration
from benchmarks.quality.sets import data_sets
from benchmarks.quality.trial import THREADS, batcher_of, open_store
from mmtpp.core.events import Events
from mmtpp.core.representation.branches import BranchedTokens, lay_out_branches
from mmtpp.core.representation.row import PackedRow
from mmtpp.core.representation.template import Template
from mmtpp.data.from_config import build_sample_settings
from mmtpp.data.prepare import prepare
from mmtpp.data.samples.interval_range import interval_range
from mmtpp.data.store.store_reader import StoreReader
from mmtpp.model.base_folder import build_tiny
from mmtpp.model.batch import Batcher
from mmtpp.model.event_model import EventModel
from mmtpp.model.flops import FlopCounter
from mmtpp.model.row_forecaster import RowForecaster

RESULT = Path(__file__).with_suffix(".md")
TARGETS, VIDEOS, SINGLE_TARGETS = 300, 3, 12
TASKS = ("time", "type")
FLOOR = 50.0


def as_row(laid: BranchedTokens, num_events: int) -> PackedRow:
    """One window as a row, without images."""
    return PackedRow.from_window(
        laid.tokens,
        np.zeros(num_events, dtype=np.int16),
        np.zeros((0, 56, 56, 3), dtype=np.uint8),
        may_be_label=laid.is_answer,
        branches=laid.branches,
        questions=laid.questions,
    )


@dataclass(frozen=True, slots=True)
class Scorer:
    """Scores targets of a sequence with the tiny model.

    Attributes:
        model: The tiny model.
        forecaster: Reads whole distributions from the model.
        batcher: Builds the model's inputs.
        template: Template with questions after the history.
        type_ids: Token ids of the event types.
        first_bytes: First bytes that are expanded for whole distributions.
    """

    model: EventModel
    forecaster: RowForecaster
    batcher: Batcher
    template: Template
    type_ids: torch.Tensor
    first_bytes: tuple[int, ...]

    def seconds(
        self, events: Events, targets: list[int], *, whole: bool
    ) -> tuple[float, PackedRow]:
        """Seconds to score targets exactly, or to read their whole distributions; and the row."""
        first_bytes = self.first_bytes if whole else ()
        started = time.perf_counter()
        laid = lay_out_branches(
            self.template, events, targets, tasks=TASKS, first_bytes=first_bytes
        )
        row = as_row(laid, len(events))
        if whole:
            self.forecaster(row, self.batcher(row))
        else:
            with torch.inference_mode():
                self.model(self.batcher(row), self.type_ids)
        return time.perf_counter() - started, row


@dataclass(frozen=True, slots=True)
class Rates:
    """Targets per second of each video.

    Attributes:
        branches: With one pass for all targets.
        re_encoding: With one pass over the history per target.
        tokens: Number of tokens in the row with all targets.
    """

    branches: list[float]
    re_encoding: list[float]
    tokens: list[float]

    @property
    def ratios(self) -> list[float]:
        """Rate with branches divided by the rate with re-encoding."""
        pairs = zip(self.branches, self.re_encoding, strict=True)
        return [branches / re_encoding for branches, re_encoding in pairs]


def measure_rates(scorer: Scorer, videos: list[Events], *, whole: bool) -> Rates:
    """Measure both methods on each video, exactly or with whole distributions."""
    single = np.linspace(1, TARGETS, SINGLE_TARGETS).astype(int).tolist()
    every = list(range(1, TARGETS + 1))
    rates = Rates([], [], [])
    scorer.seconds(videos[0], every, whole=whole)  # warm-up
    for events in videos:
        apart = [scorer.seconds(events, [target], whole=whole)[0] for target in single]
        spent, row = scorer.seconds(events, every, whole=whole)
        rates.branches.append(TARGETS / spent)
        rates.re_encoding.append(len(apart) / sum(apart))
        rates.tokens.append(len(row.input_ids))
    return rates


def main() -> int:
    """Measure, print and write the results."""
    torch.set_num_threads(THREADS)
    available = data_sets(WORK)
    if "danmaku" not in available:
        print("MMTPP_TEST_DATA does not name a folder with danmaku_bilibili_xml", file=sys.stderr)
        return 2
    config = configuration(available["danmaku"], BUDGET)
    prepare(config)
    manifest, vocabulary = open_store(config)
    settings = build_sample_settings(config.sample_sections, manifest, split="train")
    grid = interval_range(settings).grid(num_bytes=config.template.time_bytes)
    template = Template(vocabulary.token_ids(), settings.template, has_questions=True)
    reader = StoreReader(settings.store)
    videos = [
        sequence.events.slice(0, TARGETS + 1)
        for sequence in reader.sequences(reader.files(), with_text=True)
        if len(sequence.events) > TARGETS
    ][:VIDEOS]
    model = EventModel(build_tiny(vocabulary, seed=0)).eval()
    codes = [code for code, count in enumerate(manifest.type_counts) if count]
    type_ids = vocabulary.type_ids(codes)
    scorer = Scorer(
        model,
        RowForecaster(model, vocabulary.token_ids(), type_ids, grid),
        batcher_of(config, vocabulary),
        template,
        torch.tensor(type_ids),
        grid.first_bytes,
    )
    counter = FlopCounter(
        model.train(), image_px=config.template.image_px, blank_frame=config.shows_images
    )
    model.eval()
    supervised = [_supervised(counter, template, events) for events in videos]
    distributions = measure_rates(scorer, videos, whole=True)
    scores = measure_rates(scorer, videos, whole=False)
    return _report(scores, distributions, supervised, len(grid.first_bytes))


def _report(
    scores: Rates, distributions: Rates, supervised: list[float], num_first_bytes: int
) -> int:
    """Print and write the results; returns 1 if a floor is missed."""
    floors = {
        f"targets scored per second, branches over re-encoding (floor {FLOOR:.0f})": scores.ratios,
        "supervised targets per operation, branches over one per sequence "
        f"(floor {FLOOR:.0f})": supervised,
    }
    figures = {
        "the same with whole distributions": distributions.ratios,
        "targets scored per second, branches": scores.branches,
        "targets scored per second, re-encoding": scores.re_encoding,
        "whole distributions per second, branches": distributions.branches,
        "whole distributions per second, re-encoding": distributions.re_encoding,
        "tokens of the row with whole distributions": distributions.tokens,
    }
    text = table(
        "Forecasts",
        f"`make bench-forecast`; {machine('torch', 'transformers', used='both used')}. "
        f"{VIDEOS} danmaku videos, {TARGETS} targets each, {num_first_bytes} first bytes "
        "expanded; median [range] over the videos; re-encoding measured at "
        f"{SINGLE_TARGETS} targets.",
        {name: _figure(values) for name, values in figures.items()},
        floors={name: _figure(values) for name, values in floors.items()},
    )
    missed = [name for name, values in floors.items() if statistics.median(values) < FLOOR]
    return finish(text, RESULT, missed)


def _supervised(counter: FlopCounter, template: Template, events: Events) -> float:
    """Ratio of supervised targets per operation in stage 2: with branches to one per sequence.

    A single target is drawn uniformly, so its history is half the sequence on average.
    """
    every = lay_out_branches(template, events, range(1, len(events)), tasks=TASKS)
    branches = counter(as_row(every, len(events))).total / (len(events) - 1)
    alone = [
        counter(
            as_row(lay_out_branches(template, events, [target], tasks=TASKS), len(events))
        ).total
        for target in np.linspace(1, len(events) - 1, SINGLE_TARGETS).astype(int).tolist()
    ]
    return statistics.mean(alone) / branches


def _figure(values: list[float]) -> str:
    return f"{statistics.median(values):,.1f} [{min(values):,.1f}-{max(values):,.1f}]"


if __name__ == "__main__":
    sys.exit(main())
