"""Packed rows compared with the batches of transformers' Trainer, on short and on long sequences.

    python -m benchmarks.short_rows        about six minutes of one core

The tiny model trains on the same sequences in two ways, alternating in one process: our step on
packed rows, and a loop with transformers' own forward pass on batches as its Trainer builds them,
padded to the longest sequence, in random order or grouped by length (``group_by_length``). The loop
has none of the Trainer's own overhead, and the best of several batch sizes is compared. Both have
the same optimiser, as many updates, and every token after the first of a sequence as a label. Our
step is also measured with attention that computes one segment after the other, without groups.

Speed is useful tokens per second of CPU time of one thread, because other programs on the machine
change it less than wall time. Needs MMTPP_TEST_DATA for the earthquakes and the danmaku. Prints a
table and writes it to ``short_rows.md`` next to this file. Fails if a floor is missed.
"""

import os

os.environ.setdefault("RAY_AUTH_MODE", "token")  # Ray reads it on import

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from benchmarks.engine import single_rank_engine
from benchmarks.measure import finish, machine, table
from benchmarks.quality.trial import start_engine
from benchmarks.representation import read_danmaku
from benchmarks.stack import danmaku_folder
from mmtpp.config.load import config_from_tree
from mmtpp.core.events import EventSequence
from mmtpp.core.representation.packing import PackedSamples, pack
from mmtpp.core.representation.row import PackedRow
from mmtpp.core.representation.template import Template, TemplateSettings
from mmtpp.core.representation.tokens import Tokens
from mmtpp.core.representation.window import cut_windows
from mmtpp.data.encode.tokenised_events import tokenise_sequences
from mmtpp.data.sources import build_reader
from mmtpp.data.sources.checking import read_file
from mmtpp.data.sources.type_codes import TypeCodes
from mmtpp.model.base_folder import build_tiny
from mmtpp.model.batch import Batch, Batcher
from mmtpp.model.event_model import EventModel
from mmtpp.model.tokens.vocabulary import Vocabulary, train_tokenizer
from mmtpp.train.step import LabelWeights, StepContext, train_step

ROW_TOKENS, NUM_ROWS, ROWS_PER_STEP = 2048, 8, 4
ROUNDS = 8
GROUPED_BATCHES = 50  # transformers sorts as many batches at a time by length
RESULT = Path(__file__).with_name("short_rows.md")
CPU = torch.device("cpu")
TEMPLATE = TemplateSettings("minimal", "none", image_tokens=4)

PACKED, PADDED, GROUPED = "packed", "padded", "grouped by length"
ONE_BY_ONE = "packed, one segment after the other"
OURS = (PACKED, ONE_BY_ONE)

Loop = Callable[[], None]  # trains on all sequences once


@dataclass(frozen=True, slots=True)
class Case:
    """Sequences of one length.

    Attributes:
        name: Name of the case.
        tokens: Tokens of each sequence.
        vocabulary: Vocabulary of the tokens.
        batch_sizes: Sequences per batch that are tried without packing.
        floor: Minimum speed, relative to the fastest batches.
    """

    name: str
    tokens: list[Tokens]
    vocabulary: Vocabulary
    batch_sizes: tuple[int, ...]
    floor: float

    @property
    def num_tokens(self) -> int:
        """Number of tokens of all sequences."""
        return sum(len(tokens.ids) for tokens in self.tokens)


def _earthquakes(folder: Path) -> list[EventSequence]:
    """The sequences of EasyTPP's training file."""
    reader, path = build_reader("easytpp"), folder / "train.pkl"
    return read_file(
        reader, path.name, path.read_bytes(), types=TypeCodes(reader.type_names)
    ).sequences


def _case(sequences: list[EventSequence], name: str, sizes: tuple[int, ...], floor: float) -> Case:
    """As many sequences, in random order, as fill ``NUM_ROWS`` rows; the first window of each."""
    texts = [text for sequence in sequences for text in sequence.texts]
    vocabulary = Vocabulary(train_tokenizer(texts or [""], size=1536))
    template = Template(vocabulary.token_ids(), TEMPLATE)
    order = np.random.default_rng(0).permutation(len(sequences))
    written: list[Tokens] = []
    total = 0
    for events in tokenise_sequences([sequences[index] for index in order], vocabulary):
        first = cut_windows(events, template, max_tokens=ROW_TOKENS, overlap_fraction=0.0)[0]
        tokens = template.write(events.slice(first.start, first.end))
        total += len(tokens.ids)
        if total > NUM_ROWS * ROW_TOKENS:
            break
        written.append(tokens)
    while len(_pack(written)) > NUM_ROWS:
        written.pop()
    return Case(name, written, vocabulary, sizes, floor)


def _pack(tokens: list[Tokens]) -> PackedSamples:
    return pack([len(window.ids) for window in tokens], max_tokens=ROW_TOKENS, seed=0)


def packed_rows(case: Case) -> list[PackedRow]:
    """Rows of all sequences; every token that has a predecessor is a label."""
    samples = _pack(case.tokens)
    assert len(samples) % ROWS_PER_STEP == 0, "a step would repeat a row"
    return [_row([case.tokens[index] for index in sample]) for sample in samples]


def _row(parts: list[Tokens]) -> PackedRow:
    ids = np.concatenate([tokens.ids for tokens in parts])
    lengths = [len(tokens.ids) for tokens in parts]
    return PackedRow(
        sample_id=0,
        input_ids=ids,
        modality=np.concatenate([tokens.modality for tokens in parts]),
        segment=np.repeat(np.arange(len(parts), dtype=np.int32), lengths),
        event=np.zeros(len(ids), dtype=np.int32),
        may_be_label=np.ones(len(ids), dtype=np.bool_),
        frames=np.zeros((0, 56, 56, 3), dtype=np.uint8),
        image_frame=np.zeros(0, dtype=np.int32),
        event_type=np.zeros(1, dtype=np.int16),
        event_is_target=np.ones(1, dtype=np.bool_),
    )


class _OneByOneBatcher(Batcher):
    """Moves rows to a device; their segments attend one after the other."""

    def __call__(self, row: PackedRow) -> Batch:
        batch = super().__call__(row)
        return replace(batch, segments=replace(batch.segments, groups=None))


def _packed_loop(case: Case, batcher: type[Batcher] = Batcher) -> Loop:
    """Our step, with the engine of a training, on packed rows."""
    config = config_from_tree(
        {"lora": {"rank": 0}, "training": {"samples_per_step": ROWS_PER_STEP, "num_steps": 10**6}}
    )
    engine = single_rank_engine(config, EventModel(build_tiny(case.vocabulary, seed=0)))
    rows = packed_rows(case)
    weights = LabelWeights(config.training.loss_weights, config.tasks)
    context = StepContext(
        engine, batcher_of(case.vocabulary, batcher), weights, ROWS_PER_STEP, seed=0
    )

    def train() -> None:
        for start in range(0, len(rows), ROWS_PER_STEP):
            train_step(context, rows[start : start + ROWS_PER_STEP], start)

    return train


def batcher_of(vocabulary: Vocabulary, batcher: type[Batcher] = Batcher) -> Batcher:
    """Moves rows without images to the CPU."""
    pad = vocabulary.special("<|image_pad|>")
    return batcher(image_pad=pad, image_px=56, device=CPU, dtype=torch.float32)


def batches_of(case: Case, size: int, *, grouped: bool) -> list[dict[str, torch.Tensor]]:
    """Padded batches in random order, as transformers' Trainer builds them."""
    rng = np.random.default_rng(0)
    lengths = [len(tokens.ids) for tokens in case.tokens]
    order = rng.permutation(len(lengths)).tolist()
    if grouped:
        many = size * GROUPED_BATCHES
        parts = [order[start : start + many] for start in range(0, len(order), many)]
        order = [index for part in parts for index in sorted(part, key=lambda at: -lengths[at])]
    chosen = [order[start : start + size] for start in range(0, len(order), size)]
    return [_padded(case, chosen[index]) for index in rng.permutation(len(chosen))]


def _padded(case: Case, sequences: list[int]) -> dict[str, torch.Tensor]:
    parts = [torch.tensor(case.tokens[index].ids.astype(np.int64)) for index in sequences]
    ids = torch.nn.utils.rnn.pad_sequence(parts, batch_first=True)
    mask = torch.arange(ids.shape[1]) < torch.tensor(list(map(len, parts)))[:, None]
    return {
        "input_ids": ids,
        "attention_mask": mask.long(),
        "labels": ids.masked_fill(~mask, -100),
        "mm_token_type_ids": torch.zeros_like(ids),
    }


def _batched_loop(case: Case, size: int, *, grouped: bool) -> Loop:
    """A loop with transformers' own forward pass and as many updates as our loop."""
    model = build_tiny(case.vocabulary, seed=0).train()
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, betas=(0.9, 0.95), weight_decay=0.01)
    batches = batches_of(case, size, grouped=grouped)
    num_updates = -(-len(packed_rows(case)) // ROWS_PER_STEP)
    ends = np.linspace(0, len(batches), num_updates + 1).round().astype(int).tolist()
    steps = [batches[start:end] for start, end in pairwise(ends)]

    def train() -> None:
        for step in steps:
            num_labels = sum(int((batch["labels"][:, 1:] >= 0).sum()) for batch in step)
            for batch in step:
                output = model(**batch, use_cache=False, num_items_in_batch=num_labels)
                output.loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad()

    return train


@torch.no_grad()
def _nats_per_label(case: Case) -> tuple[float, float]:
    """Loss of the untrained model on packed rows, and with transformers' own forward pass."""
    model = build_tiny(case.vocabulary, seed=0)
    sums = [
        float(
            model(**batch, use_cache=False, num_items_in_batch=1).loss  # the sum of the nats
        )
        for batch in batches_of(case, case.batch_sizes[-1], grouped=True)
    ]
    packed, move = EventModel(model), batcher_of(case.vocabulary)
    nll = torch.cat([packed(move(row))[0] for row in packed_rows(case)])
    assert len(nll) == case.num_tokens - len(case.tokens), "the labels are not the same"
    return float(nll.double().mean()), sum(sums) / len(nll)


def _measure(case: Case) -> dict[str, list[float]]:
    """Useful tokens per second of CPU time of every loop, in rounds that alternate."""
    loops = {PACKED: _packed_loop(case), ONE_BY_ONE: _packed_loop(case, _OneByOneBatcher)}
    for size in case.batch_sizes:
        for name, grouped in ((PADDED, False), (GROUPED, True)):
            loops[f"{name} {size}"] = _batched_loop(case, size, grouped=grouped)
    for train in loops.values():
        train()  # the first step allocates memory
    rates: dict[str, list[float]] = {name: [] for name in loops}
    for number in range(ROUNDS):
        print(f"{case.name}: round {number + 1} of {ROUNDS}", file=sys.stderr)
        names = list(loops)
        for name in names if number % 2 else reversed(names):
            started = time.process_time()
            loops[name]()
            rates[name].append(case.num_tokens / (time.process_time() - started))
    return rates


def _ratios(rates: dict[str, list[float]], name: str) -> list[float]:
    """Speed of our step, relative to that of another loop in the same round."""
    return [ours / other for ours, other in zip(rates[PACKED], rates[name], strict=True)]


def _fastest(rates: dict[str, list[float]], kind: str) -> str:
    """Name of the fastest batches of a kind."""
    return max(
        (name for name in rates if name.startswith(kind)),
        key=lambda name: statistics.median(rates[name]),
    )


def _report(case: Case, rates: dict[str, list[float]]) -> tuple[dict[str, list[float]], dict]:
    """Ratios of our speed to that of the fastest batches, by their names; and the figures."""
    ratios: dict[str, list[float]] = {}
    figures = {f"{case.name}: tokens/s, {name}": _figure(rates[name]) for name in OURS}
    without_groups = _ratios(rates, ONE_BY_ONE)
    figures[f"{case.name}: packed over {ONE_BY_ONE}"] = _figure(without_groups, 2)
    for kind in (PADDED, GROUPED):
        of_kind = _ratios(rates, _fastest(rates, kind))
        ratios[f"{case.name}: packed over batches {kind} (floor {case.floor:g})"] = of_kind
        for other, values in rates.items():
            if other.startswith(kind):
                figures[f"{case.name}: tokens/s, {other} a batch"] = _figure(values)
    packed, batched = _nats_per_label(case)
    figures[f"{case.name}: nats per label before training, packed and batched"] = (
        f"{packed:.6f}, {batched:.6f}"
    )
    lengths = [len(tokens.ids) for tokens in case.tokens]
    figures[f"{case.name}: sequences, median and range of their tokens"] = (
        f"{len(lengths)}, {statistics.median(lengths):.0f} [{min(lengths)}-{max(lengths)}]"
    )
    return ratios, figures


def _figure(values: list[float], digits: int = 0) -> str:
    middle = statistics.median(values)
    return f"{middle:,.{digits}f} [{min(values):,.{digits}f}-{max(values):,.{digits}f}]"


def main() -> int:
    """Measure, print and write the results."""
    danmaku = danmaku_folder()  # exits without the data
    start_engine()
    cases = (
        _case(_earthquakes(danmaku.parent / "tpp_earthquake"), "short", (4, 8, 16, 32), 1.5),
        _case(read_danmaku(danmaku), "long", (1, 2, 4), 1.5),
    )
    ratios: dict[str, list[float]] = {}
    figures: dict[str, str] = {}
    missed: list[str] = []
    for case in cases:
        of_case, more = _report(case, _measure(case))
        ratios |= of_case
        figures |= more
        missed += [name for name in of_case if statistics.median(of_case[name]) < case.floor]
    text = table(
        "Short rows",
        f"`taskset -c 0 python -m benchmarks.short_rows`; {machine('torch', 'transformers')}. "
        f"The tiny model, float32, text only; rows of {ROW_TOKENS:,} tokens; useful tokens per "
        "second of CPU time of one thread. Median [range] "
        f"of {ROUNDS} alternating rounds; a ratio is that of two loops in the same round. The "
        "machine is shared: other programs run at the same time, and the ranges show their effect. "
        "Short: EasyTPP's earthquakes; long: danmaku. Batches are compared at their fastest size.",
        figures,
        floors={name: _figure(values, 2) for name, values in ratios.items()},
    )
    return finish(text, RESULT, missed)


if __name__ == "__main__":
    sys.exit(main())
