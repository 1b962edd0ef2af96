"""The speed of LoRA steps of SmolLM2-135M on a CPU, compared with a bare loop and the peak.

    python -m benchmarks.pretrained.speed [--data TRANSCRIPTS] [--small]
    python -m benchmarks.pretrained.speed --profile      shares of a bare step's time, printed

Three training loops take turns on the same rows of tokens, in bfloat16 on both cores:

- ours: packed rows, ``train_step`` and DeepSpeed;
- bare: the same model in a loop of plain PyTorch;
- transformers: the model as transformers and PEFT build it, one sequence per row, in a plain loop.

A fourth loop compiles the third one with ``torch.compile``. The peak is that of products of square
bfloat16 matrices on the same cores. Writes ``speed.md`` next to this file.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

os.environ.setdefault("RAY_AUTH_MODE", "token")  # Ray reads it when it is imported

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile
from transformers import AutoModelForCausalLM

from benchmarks.measure import finish, machine, table
from benchmarks.pretrained.event_sets import TRANSCRIPTS, EventSet, find_transcripts
from benchmarks.pretrained.run import WORK, Budget, configuration, import_base
from benchmarks.quality.trial import Samples, batcher_of, open_store, start_engine, start_training
from mmtpp.config.load import with_values
from mmtpp.config.schema import RunConfig
from mmtpp.core.representation.row import PackedRow
from mmtpp.core.representation.supervision import AllTokens
from mmtpp.data.from_config import build_sample_settings
from mmtpp.data.prepare import prepare
from mmtpp.model.cpu_bfloat16 import adapt_to_processor
from mmtpp.model.event_model import EventModel, EventModelSettings, build_event_model
from mmtpp.model.flops import FlopCounter, peak_flops
from mmtpp.model.tokens.vocabulary import Vocabulary
from mmtpp.train.step import train_step

RESULT = Path(__file__).with_name("speed.md")
CPU = torch.device("cpu")
MAX_RATIO, MIN_MFU = 1.1, 0.5
LORA_RANK, LORA_ALPHA = 16, 32
LEARNING_RATE = 1e-4
SHOWN_OPERATORS = 12
Loop = Callable[[PackedRow], None]


@dataclass(frozen=True, slots=True)
class Size:
    """Size of the measurement.

    Attributes:
        max_tokens: Length of a row, in tokens.
        steps: Number of timed steps, of one row each.
        warm_up: Number of steps before them, which allocate memory and compile.
        threads: Number of threads.
    """

    max_tokens: int = 1024
    steps: int = 7
    warm_up: int = 2
    threads: int = 2


def long_rows(config: RunConfig, count: int) -> tuple[list[PackedRow], Vocabulary]:
    """Rows of one window each, so that a loop without packing reads the same tokens."""
    manifest, vocabulary = open_store(config)
    settings = build_sample_settings(
        config.sample_sections, manifest, split="train", supervision=AllTokens()
    )
    samples = Samples.from_settings(settings, vocabulary)
    rows = []
    for index in range(len(samples)):
        row = samples.row(index)
        if int(row.segment.max()) == 0 and len(row.input_ids) > 0.9 * config.window.max_tokens:
            rows.append(row)
        if len(rows) == count:
            return rows, vocabulary
    raise SystemExit(f"only {len(rows)} rows have one long window; {count} are needed")


def build_model(base: Path, vocabulary: Vocabulary) -> EventModel:
    """SmolLM2 with LoRA, ready to train."""
    settings = EventModelSettings(
        lora_rank=LORA_RANK,
        lora_alpha=LORA_ALPHA,
        lora_dropout=0.0,
        freeze_vision=True,
        activation_checkpointing=False,
        seed=0,
        dtype=torch.bfloat16,
    )
    return build_event_model(settings, vocabulary, path=base)


def our_loop(config: RunConfig, base: Path, vocabulary: Vocabulary) -> Loop:
    """A step as a training on Ray makes it."""
    context = start_training(config, build_model(base, vocabulary), precision="bfloat16")
    steps = iter(range(sys.maxsize))

    def work(row: PackedRow) -> None:
        train_step(context, [row], next(steps))

    return work


def bare_loop(config: RunConfig, base: Path, vocabulary: Vocabulary) -> Loop:
    """A step of plain PyTorch with the same model."""
    model, batcher = build_model(base, vocabulary), batcher_of(config, vocabulary)
    update = _update_of(model)

    def work(row: PackedRow) -> None:
        nll, _ = model(batcher(row))
        update(nll.sum() / len(nll))

    return work


def transformers_loop(base: Path, vocabulary: Vocabulary, *, compiled: bool) -> Loop:
    """A step with the model as transformers and PEFT build it.

    The rows of added tokens are read from the matrix, which has to be lengthened; they are trained
    in no other loop than ours and the bare one.
    """
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    if (size := 1 + max(vocabulary.added_ids)) > model.config.vocab_size:
        model.resize_token_embeddings(size)
    adapter = LoraConfig(
        r=LORA_RANK, lora_alpha=LORA_ALPHA, lora_dropout=0.0, target_modules="all-linear"
    )
    model = get_peft_model(model, adapter).train()
    forward = torch.compile(model) if compiled else model
    update = _update_of(model)

    def work(row: PackedRow) -> None:
        ids = torch.from_numpy(row.input_ids.astype(np.int64))[None]
        logits = forward(input_ids=ids, use_cache=False).logits[0, :-1]
        update(functional.cross_entropy(logits.float(), ids[0, 1:]))

    return work


def _update_of(model: torch.nn.Module) -> Callable[[torch.Tensor], None]:
    """The backward pass and the update of AdamW, with clipped gradients."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, fused=True)

    def update(loss: torch.Tensor) -> None:
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return update


def time_in_turn(
    loops: dict[str, Loop], rows: list[PackedRow], size: Size
) -> dict[str, list[float]]:
    """Seconds of the timed steps of each loop; the loops take turns on the same rows."""
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    for row in rows:
        for name, work in loops.items():
            started = time.perf_counter()
            work(row)
            seconds[name].append(time.perf_counter() - started)
    return {name: values[size.warm_up :] for name, values in seconds.items()}


def main() -> int:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="table of the utterances, gzipped")
    parser.add_argument("--small", action="store_true", help="only check that the benchmark runs")
    parser.add_argument("--profile", action="store_true", help="shares of the time of a step")
    arguments = parser.parse_args()
    base, transcripts = import_base(), find_transcripts(arguments.data)
    size = Size(128, 2, 1) if arguments.small else Size()
    if arguments.profile:
        for name, share in profile_step(transcripts, base, WORK, size).items():
            print(f"{share:6.1%}  {name}")
        return 0
    text, missed = measure(transcripts, base, WORK, size)
    if arguments.small:
        print(text)
        return 0
    return finish(text, RESULT, missed)


def measure(transcripts: Path, base: Path, work: Path, size: Size) -> tuple[str, list[str]]:
    """The table, and the floors that are missed.

    Args:
        transcripts: Table of the utterances, gzipped.
        base: Folder of the pretrained model.
        work: Folder for events and stores.
        size: Size of the measurement.
    """
    config = _prepare(transcripts, base, work, size)
    start_engine()
    torch.set_num_threads(size.threads)
    adapt_to_processor(CPU, torch.bfloat16)
    rows, vocabulary = long_rows(config, size.warm_up + size.steps)
    loops = {
        "ours": our_loop(config, base, vocabulary),
        "bare": bare_loop(config, base, vocabulary),
        "transformers": transformers_loop(base, vocabulary, compiled=False),
        "compiled": transformers_loop(base, vocabulary, compiled=True),
    }
    seconds = time_in_turn(loops, rows, size)
    counter = FlopCounter(build_model(base, vocabulary), image_px=28, blank_frame=False)
    operations = [counter(row).total for row in rows[size.warm_up :]]
    peak, source = peak_flops(CPU, torch.bfloat16)
    rates = [count / taken for count, taken in zip(operations, seconds["ours"], strict=True)]
    mfu = statistics.median(rates) / peak
    return _report(seconds, rows[size.warm_up :], mfu, peak, source)


def _prepare(transcripts: Path, base: Path, work: Path, size: Size) -> RunConfig:
    """Prepare the store; returns the settings of steps of one row."""
    budget = replace(Budget(), max_tokens=size.max_tokens)
    config = configuration(transcripts, budget, base, work, EventSet(TRANSCRIPTS))
    prepare(config)
    return with_values(config, {"training.samples_per_step": 1})


def profile_step(transcripts: Path, base: Path, work: Path, size: Size) -> dict[str, float]:
    """Shares of the time of a bare step by torch's operators, the largest first.

    Args:
        transcripts: Table of the utterances, gzipped.
        base: Folder of the pretrained model.
        work: Folder for events and stores.
        size: Size of the measurement.
    """
    config = _prepare(transcripts, base, work, size)
    torch.set_num_threads(size.threads)
    adapt_to_processor(CPU, torch.bfloat16)
    (warm_up, profiled), vocabulary = long_rows(config, 2)
    step = bare_loop(config, base, vocabulary)
    step(warm_up)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        step(profiled)
    spent = {event.key: event.self_cpu_time_total for event in profiler.key_averages()}
    total = sum(spent.values())
    ordered = sorted(spent, key=lambda name: -spent[name])[:SHOWN_OPERATORS]
    return {name: spent[name] / total for name in ordered}


def _report(
    seconds: dict[str, list[float]], rows: list[PackedRow], mfu: float, peak: float, source: str
) -> tuple[str, list[str]]:
    ratio = _median_ratio(seconds["ours"], seconds["bare"])
    floors = {
        f"our step over a bare loop's (at most {MAX_RATIO})": (ratio, ratio <= MAX_RATIO),
        f"useful operations of our step over the peak (at least {MIN_MFU})": (mfu, mfu >= MIN_MFU),
    }
    tokens = float(np.mean([len(row.input_ids) for row in rows]))
    figures = {
        "our step over transformers and PEFT": f"{_ratio_to('transformers', seconds):.3f}",
        "transformers and PEFT, compiled over not compiled": (
            f"{_median_ratio(seconds['compiled'], seconds['transformers']):.3f}"
        ),
        **{f"tokens/s, {name}": _rates(values, tokens) for name, values in seconds.items()},
        "peak, 10⁹ operations/s": f"{peak / 1e9:,.0f} ({source})",
    }
    text = table(
        "LoRA steps of SmolLM2-135M",
        f"`python -m benchmarks.pretrained.speed`; "
        f"{machine('torch', 'transformers', 'peft', 'deepspeed', used='both used')}. Rows of one "
        f"window of {tokens:,.0f} tokens, one row per step, LoRA of rank {LORA_RANK}, bfloat16; "
        f"{len(rows)} steps of each loop in turn, ratios of medians.",
        figures,
        floors={name: f"{value:.3f}" for name, (value, _) in floors.items()},
    )
    return text, [name for name, (_, holds) in floors.items() if not holds]


def _ratio_to(name: str, seconds: dict[str, list[float]]) -> float:
    return _median_ratio(seconds["ours"], seconds[name])


def _median_ratio(ours: list[float], other: list[float]) -> float:
    return statistics.median(ours) / statistics.median(other)


def _rates(seconds: list[float], tokens: float) -> str:
    rates = sorted(tokens / value for value in seconds)
    return f"{statistics.median(rates):,.0f} [{rates[0]:,.0f}-{rates[-1]:,.0f}]"


if __name__ == "__main__":
    sys.exit(main())
