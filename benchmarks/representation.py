"""Number of events in a context, share of used tokens in packed samples, and speed of both.

    make bench-representation

Needs MMTPP_TEST_DATA for the danmaku. Prints the tables and writes them to
``events_per_context.md`` next to this file. Fails if a floor is missed.

The reference is an independent loop in the style of the published scripts: it writes each event as
a string, calls the tokenizer for its length and checks that its image file exists.
"""

import os
import struct
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.measure import figure, finish, machine, rate, ratio
from benchmarks.stack import danmaku_folder
from mmtpp.core.events import NO_FRAME, Events, EventSequence, intervals_from_times
from mmtpp.core.representation.compression import STRATEGIES, Compression, compress, similar_events
from mmtpp.core.representation.packing import pack
from mmtpp.core.representation.template import Template, TemplateSettings
from mmtpp.core.representation.timecode import TIME_BYTES, encode_intervals
from mmtpp.core.representation.window import cut_windows, events_that_fit
from mmtpp.data.encode.tokenised_events import tokenise_sequences
from mmtpp.data.sources import build_reader
from mmtpp.data.sources.checking import read_file
from mmtpp.data.sources.flights import load_departures, sequences
from mmtpp.data.sources.type_codes import TypeCodes
from mmtpp.model.tokens.vocabulary import Vocabulary
from tests.helpers.qwen_vocabulary import published_tokenizer, qwen_vocabulary

MAX_TOKENS = 4096
IMAGE_TOKENS = 9  # 84 pixels
MIN_COMMENTS = 500
DELTA = 0.2
RESULT = Path(__file__).with_name("events_per_context.md")


@dataclass(frozen=True)
class Case:
    """One row of the context table; its figure must be in the range ``low`` to ``high``."""

    style: str
    images: str
    time_bytes: int
    run_encoding: str
    delta: float
    low: float
    high: float = float("inf")

    @property
    def template(self) -> TemplateSettings:
        return TemplateSettings(
            self.style, self.images, IMAGE_TOKENS, self.time_bytes, self.run_encoding
        )

    @property
    def compression(self) -> Compression:
        return Compression("temporal" if self.delta else "none", self.delta)


CASES = (
    Case("paper", "per_event", 4, "token", 0.0, 112, 118),
    Case("paper", "per_event", 4, "token", DELTA, 246, 262),
    Case("compact", "on_change", 4, "token", 0.0, 205),
    Case("compact", "on_change", 4, "run_length", DELTA, 389),
    Case("minimal", "on_change", 2, "token", 0.0, 294),
    Case("minimal", "on_change", 2, "run_length", DELTA, 508),
    Case("dense", "on_change", 2, "token", 0.0, 294),
    Case("dense", "on_change", 2, "run_length", DELTA, 508),
)


def read_danmaku(folder: Path) -> list[EventSequence]:
    """Read the videos with at least ``MIN_COMMENTS`` comments."""
    reader = build_reader("danmaku")
    videos = []
    for path in sorted(folder.glob("*.xml")):
        parsed = read_file(reader, path.name, path.read_bytes(), types=TypeCodes(reader.type_names))
        videos += [video for video in parsed.sequences if len(video) >= MIN_COMMENTS]
    return videos


def tokenise(vocabulary: Vocabulary, videos: list[EventSequence]) -> list[Events]:
    """Tokenise the comments; the frame of a comment is that of its second in the video."""
    return [
        replace(events, frames=np.floor(video.times).astype(np.int32))
        for video, events in zip(videos, tokenise_sequences(videos, vocabulary), strict=True)
    ]


def events_from_start(events: Events, template: Template) -> int:
    """Number of events from the first one that fit into the context."""
    return int(events_that_fit(events, template, max_tokens=MAX_TOKENS)[0])


class PublishedLoop:
    """The published method to count tokens: from events to strings to the tokenizer."""

    def __init__(self, image: Path) -> None:
        self._image = image
        self._tokenizer = published_tokenizer()

    def _cost(self, event: str) -> int:
        return len(self._tokenizer.encode(event, add_special_tokens=False).ids)

    def events_in_context(self, video: EventSequence, start: int, delta: float) -> tuple[int, bool]:
        """Number of events from ``start`` that fit, and whether the context is full."""
        used = self._cost("Event Sequence:\n")
        previous = None
        for index in range(start, len(video)):
            interval = float(video.times[index] - video.times[max(index - 1, 0)])
            if previous is not None and abs(interval - previous) < delta:
                cost = self._cost("<|similar_event|>\n")
            else:
                assert self._image.is_file()
                kind, text = video.types[index], video.texts[index]
                code = "".join(f"<|byte_{byte}|>" for byte in struct.pack(">f", interval))
                # the string contains one pad token of the image already
                cost = (
                    IMAGE_TOKENS
                    - 1
                    + self._cost(
                        f"<|start_of_event|> <|time_start|>{code}<|time_end|> "
                        f"<|type_start|><|type_{kind}|><|type_end|> "
                        f"<|text_start|>{text}<|text_end|> "
                        "<|vision_start|><|image_pad|><|vision_end|> <|end_of_event|>\n"
                    )
                )
            if used + cost > MAX_TOKENS:
                return index - start, True
            used += cost
            previous = interval
        return len(video) - start, False


def context_table(videos: list[EventSequence], events: list[Events], ids, loop: PublishedLoop):
    """The context table in Markdown, and the names of missed floors."""
    lines = [
        "| style | images | time code | runs | Delta | events in the context | all starts pooled "
        "| floor | published style |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    missed = []
    for case in CASES:
        template = Template(ids, case.template)
        counts = [
            events_that_fit(compress(video, case.compression), template, max_tokens=MAX_TOKENS)
            for video in events
        ]
        counts = [starts for starts in counts if len(starts)]
        means = np.array([starts.mean() for starts in counts])
        published = "" if case.style != "paper" else _published(videos, loop, case, template)
        bound = f"{case.low:g}" + (f" to {case.high:g}" if np.isfinite(case.high) else "")
        if not case.low <= means.mean() <= case.high:
            missed.append(f"{case}: {means.mean():.1f}")
        error = means.std(ddof=1) / np.sqrt(len(means))
        lines.append(
            f"| {case.style} | {case.images} | {case.time_bytes} bytes | {case.run_encoding} "
            f"| {case.delta:g} | **{means.mean():.1f}** ± {error:.1f} "
            f"| {np.concatenate(counts).mean():.1f} | {bound} | {published} |"
        )
    return "\n".join(lines), missed


def _published(
    videos: list[EventSequence], loop: PublishedLoop, case: Case, template: Template
) -> str:
    """Mean of the published loop over every hundredth start.

    Raises:
        AssertionError: The counts of this project differ from those of the loop.
    """
    theirs, ours = [], []
    for video, events in zip(videos, tokenise(qwen_vocabulary(), videos), strict=True):
        for start in range(0, len(video), 100):
            count, is_full = loop.events_in_context(video, start, case.delta)
            if is_full:
                theirs.append(count)
                remaining = compress(events.slice(start, len(events)), case.compression)
                ours.append(events_from_start(remaining, template))
    if theirs != ours:
        differing = sum(a != b for a, b in zip(theirs, ours, strict=True))
        raise AssertionError(f"{differing} of {len(ours)} starts differ from the published style")
    return f"{np.mean(theirs):.1f}, equal at {len(theirs)} starts"


def packing_table(name: str, events: list[Events], ids) -> tuple[list[str], list[str]]:
    """Rows of the packing table, and the names of missed floors."""
    lines, missed = [], []
    for case in CASES:
        template = Template(ids, case.template)
        lengths = [
            window.num_tokens
            for video in events
            for window in cut_windows(
                compress(video, case.compression),
                template,
                max_tokens=MAX_TOKENS,
                overlap_fraction=0.0,
            )
        ]
        samples = pack(lengths, max_tokens=MAX_TOKENS, seed=0)
        full = sum(lengths) / (len(samples) * MAX_TOKENS)
        # two windows longer than half a sample do not fit into one sample
        fewest = max(-(-sum(lengths) // MAX_TOKENS), sum(n > MAX_TOKENS // 2 for n in lengths))
        if full < 0.98 and len(samples) > fewest:
            missed.append(f"packing of {name}, {case}: {full:.4f}")
        lines.append(
            f"| {name} | {case.style} | {case.run_encoding} | {case.delta:g} | {len(lengths):,} "
            f"| {len(samples):,} | {fewest:,} | {full:.2%} |"
        )
    return lines, missed


def read_flights(vocabulary: Vocabulary) -> list[Events]:
    """Read the flights: one sequence per aircraft, with its routes as frames."""
    columns = list(sequences(load_departures(), sequence="aircraft"))
    unique = sorted({text for _, rows in columns for text in rows.text})
    ids_of = dict(zip(unique, vocabulary.encode_texts(unique), strict=True))
    events = []
    for _, rows in columns:
        texts = [ids_of[text] for text in rows.text]
        routes = (rows.origin + rows.dest).to_numpy()
        events.append(
            Events(
                intervals=intervals_from_times(rows.minute.to_numpy()),
                types=np.zeros(len(rows), dtype=np.int16),
                text_ids=np.array([token for ids in texts for token in ids], dtype=np.int32),
                text_offsets=np.cumsum([0, *map(len, texts)]),
                frames=np.unique(routes, return_inverse=True)[1].astype(np.int32),
                similar=np.zeros(len(rows), dtype=np.bool_),
            )
        )
    return events


def speed_table(videos: list[EventSequence], ids, loop: PublishedLoop) -> tuple[str, list[str]]:
    """The speed table in Markdown, and the names of missed floors."""
    rng = np.random.default_rng(0)
    million = rng.exponential(1.0, 1_000_000)
    plain = million.tolist()
    many = Events(
        intervals=million,
        types=np.zeros(len(million), dtype=np.int16),
        text_ids=rng.integers(0, 1000, 5 * len(million)).astype(np.int32),
        text_offsets=np.arange(0, 5 * len(million) + 1, 5),
        frames=np.full(len(million), NO_FRAME, dtype=np.int32),
        similar=np.zeros(len(million), dtype=np.bool_),
    )
    lines = ["| | ours | plain loop | ratio |", "|---|---|---|---|"]
    missed = []

    def add(name: str, ours: list[float], other: list[float], floor: float = 0.0) -> None:
        comparison = f"{figure(other)} | {ratio(ours, other):.0f}" if other else "| "
        lines.append(f"| {name} | {figure(ours)} | {comparison} |")
        if float(np.median(ours)) < floor:
            missed.append(f"{name}: {figure(ours)} below {floor / 1e6:g} M/s")

    packed = rate(lambda: [struct.pack(">f", wait) for wait in plain], len(plain))
    for num_bytes in TIME_BYTES:
        add(
            f"time code of {num_bytes} bytes, intervals/s",
            rate(lambda n=num_bytes: encode_intervals(million, num_bytes=n), len(plain)),
            packed,
            50e6,
        )
    looped = rate(lambda: _similar_loop(plain, DELTA), len(plain))
    for strategy in STRATEGIES:
        if strategy != "none":
            chosen, is_paper = Compression(strategy, DELTA), strategy == "temporal"
            ours = rate(lambda c=chosen: similar_events(many, c), len(plain))
            name = f"{strategy} compression, events/s"
            add(name, ours, looped if is_paper else [], 20e6 if is_paper else 0.0)

    template = Template(ids, CASES[0].template)
    few, size = videos[:10], sum(len(video) for video in videos[:10])
    tokenised = tokenise(qwen_vocabulary(), few)
    chosen = Compression("temporal", DELTA)
    theirs = rate(lambda: _published_pass(few, loop), size, rounds=3)
    once = rate(
        lambda: [
            template.write(compress(video, chosen)) for video in tokenise(qwen_vocabulary(), few)
        ],
        size,
    )
    again = rate(lambda: [template.write(compress(video, chosen)) for video in tokenised], size)
    add("paper template with tokenising, events/s", once, theirs)
    add("paper template for another Delta, events/s", again, theirs)
    return "\n".join(lines), missed


def _published_pass(videos: list[EventSequence], loop: PublishedLoop) -> None:
    """Process every event of the videos once, in consecutive contexts."""
    for video in videos:
        start = 0
        while start < len(video):
            count, _ = loop.events_in_context(video, start, DELTA)
            start += count


def _similar_loop(waits: list[float], delta: float) -> list[bool]:
    marks, previous = [], None
    for wait in waits:
        marks.append(previous is not None and abs(wait - previous) < delta)
        previous = wait
    return marks


def main() -> int:
    """Measure, print and write the results."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one core
    folder = danmaku_folder()
    vocabulary = qwen_vocabulary()
    ids = vocabulary.token_ids()
    videos = read_danmaku(folder)
    events = tokenise(vocabulary, videos)
    with tempfile.NamedTemporaryFile() as image:
        loop = PublishedLoop(Path(image.name))
        context, missed = context_table(videos, events, ids, loop)
        speed, slow = speed_table(videos, ids, loop)
    packing, loose = packing_table("danmaku", events, ids)
    more, looser = packing_table("flights", read_flights(vocabulary), ids)
    text = REPORT.format(
        machine=machine("numpy", "tokenizers"),
        videos=len(videos),
        comments=f"{sum(map(len, videos)):,}",
        context=context,
        packing="\n".join([*packing, *more]),
        speed=speed,
    )
    return finish(text, RESULT, [*missed, *slow, *loose, *looser])


REPORT = """# Events in a context of 4,096 tokens

`make bench-representation`; {machine}.

{videos} real Bilibili videos of at least 500 comments ({comments} comments), the Qwen2.5 tokenizer,
one frame of 84 pixels = 9 tokens per second. A figure is the mean over videos of the mean over all
start positions from which the video fills the context, ± the standard error over videos. The paper
reports 113 events without and 292 with compression on its own danmaku. "Published style" is an
independent loop over strings and a tokenizer with the published tokens, run on every hundredth
start; this project counts the same number of events at each of these starts. No event is dropped at
Delta 0; run-length encoding keeps the number and the time span of the compressed events.

{context}

## Packing into samples of 4,096 tokens

Samples must be at least 98 % full, or their number minimal: two windows longer than half a sample
do not fit into one sample.

| data | style | runs | Delta | windows | samples | fewest possible | full |
|---|---|---|---|---|---|---|---|
{packing}

## Speed, one core

Median [range] of 5 rounds. The loops are plain Python over single events; for the template, the
loop is the published style with its tokenizer calls and file checks.

{speed}
"""

if __name__ == "__main__":
    sys.exit(main())
