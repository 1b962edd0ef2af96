"""What pretrained weights give: SmolLM2 adapted, its architecture from random weights, and tiny.

    python -m benchmarks.pretrained.run [--data TRANSCRIPTS] [--seeds 0,1] [--sets NAMES] [--small]

Every trial runs on one core, in bfloat16 except for tiny and the expert. All language models have
the same tokenizer, steps and held-out sequences; ``tiny, same CPU seconds`` trains for as many CPU
seconds as the adapted model. The temporal expert forecasts times and types of the same events.
``benchmarks.pretrained.learning_rates`` chooses the learning rates first. Finished trials are kept
in ``results.jsonl`` next to this file and not repeated; remove the file to start again.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_AUTH_MODE", "token")

from benchmarks.pretrained.event_sets import (
    EVENT_SETS,
    TRANSCRIPTS,
    EventSet,
    event_settings,
    find_transcripts,
)
from benchmarks.pretrained.rates import RATES, read_rates
from benchmarks.pretrained.report import write_report
from benchmarks.pretrained.trial import (
    ADAPTED,
    EXPERT,
    RANDOM,
    TINY,
    TINY_LONGER,
    Extras,
    Trial,
    find_record,
    read_results,
    run_trial,
)
from benchmarks.quality.trial import start_engine
from cluster.pretrained_demo import find_weights
from mmtpp.config.load import config_from_tree
from mmtpp.config.schema import RunConfig
from mmtpp.data.prepare import prepare
from mmtpp.exchange.gguf_import import import_gguf

HERE = Path(__file__).parent
WORK = Path(os.environ.get("MMTPP_HOME", ".mmtpp")).absolute() / "pretrained"


@dataclass(frozen=True, slots=True)
class Budget:
    """Budget of a trial.

    Attributes:
        steps: Number of updates.
        max_tokens: Length of a packed row, in tokens, without the questions.
        samples_per_step: Number of rows of an update.
        test_sequences: Number of scored sequences of the transcripts.
        max_text_tokens: Maximum length of a text, in tokens.
        event_sets: Sets of events, in the order of the trials.
        expert_steps: Largest number of updates of a network of the expert.
        written_share: Share of the held-out events whose texts a model writes.
    """

    steps: int = 30
    max_tokens: int = 256
    samples_per_step: int = 2
    test_sequences: int = 2
    max_text_tokens: int = 24
    event_sets: tuple[EventSet, ...] = EVENT_SETS
    expert_steps: int = 5_000
    written_share: float = 0.18

    def extras_of(self, trial: Trial) -> Extras | None:
        """What else is measured of the models that are trained for as many CPU seconds."""
        if trial.model not in (ADAPTED, TINY_LONGER) or not trial.steps:
            return None
        return Extras(self.expert_steps, self.written_share)


SMALL = Budget(2, 128, 1, 1, 8, EVENT_SETS[:1], 20)
SMALL_RATES = {ADAPTED: 1e-3, RANDOM: 1e-3, TINY: 1e-3}


def import_base() -> Path:
    """Import the pretrained weights, unless they are imported; returns their folder."""
    base = WORK / "smollm2"
    import_gguf(str(find_weights()), str(base), precision="bfloat16")
    return base


def configuration(
    transcripts: Path, budget: Budget, base: Path, work: Path, events: EventSet
) -> RunConfig:
    """Settings of the events and of the training; writes the events unless they exist.

    Args:
        transcripts: Table of the utterances.
        budget: Budget of a trial.
        base: Folder of the pretrained model.
        work: Folder for events and stores.
        events: The set.
    """
    is_cut = events.name != TRANSCRIPTS  # its held-out sequences are few and short already
    return config_from_tree(
        {
            **event_settings(events, transcripts, work),
            "store": {"uri": str(work / f"store_{events.folder}")},
            "run": {"storage_uri": str(work / "runs")},
            "compression": {"strategy": "none"},
            "template": {
                "style": "dense",
                "time_bytes": 2,
                "images": "none",
                "max_text_tokens": budget.max_text_tokens,
            },
            "window": {"max_tokens": budget.max_tokens, "overlap_fraction": 0.25},
            "model": {"path": str(base)},
            "tasks": {"time": 1.0, "type": 0.0, "joint": 1.0, "text": 1.0},
            "training": {
                "samples_per_step": budget.samples_per_step,
                "time_smoothing": 0.125,
            },
            "evaluation": {
                "overlap_fraction": 0.5,
                "max_sequences": 0 if is_cut else budget.test_sequences,
            },
        }
    )


def trials_of(
    budget: Budget,
    rates: Mapping[str, float],
    events: EventSet,
    seed: int,
    records: list[dict[str, Any]],
) -> Iterator[Trial]:
    """The unfinished trials; those that depend on the time of another come after it."""

    def trial(model: str, steps: int, rate: float) -> Trial:
        return Trial(model, events.name, events.fraction, seed, steps, rate)

    trained = [trial(name, budget.steps, rates[name]) for name in (ADAPTED, RANDOM, TINY)]
    untrained = [replace(trained[0], steps=0)] if (events.fraction, seed) == (1.0, 0) else []
    expert = trial(EXPERT, budget.expert_steps, 0.0)
    templates = [trial(name, budget.steps, rates[ADAPTED]) for name in events.templates]
    for one in (*untrained, *trained, expert, *templates):
        if find_record(records, one) is None:
            yield one
    adapted, tiny = find_record(records, trained[0]), find_record(records, trained[2])
    longer = trial(TINY_LONGER, budget.steps, rates[TINY])
    if adapted and tiny and find_record(records, longer) is None:
        steps = max(1, round(budget.steps * adapted["cpu_s"] / tiny["cpu_s"]))
        yield replace(longer, steps=steps)


def run(
    transcripts: Path,
    base: Path,
    work: Path,
    *,
    budget: Budget,
    rates: Mapping[str, float],
    seeds: list[int],
    path: Path,
    max_trials: int = sys.maxsize,
) -> None:
    """Prepare the events and run the unfinished trials, one set of events after the other.

    Args:
        transcripts: Table of the utterances, gzipped.
        base: Folder of the pretrained model.
        work: Folder for events, stores and random weights.
        budget: Budget of a trial.
        rates: Learning rates by model.
        seeds: Seeds of the trials.
        path: File of the finished trials.
        max_trials: Number of trials after which the run stops.
    """
    configs = {
        events: configuration(transcripts, budget, base, work, events)
        for events in budget.event_sets
    }
    for config in configs.values():
        prepare(config)
    start_engine()
    records = read_results(path)
    last = len(records) + max_trials
    for events, config in configs.items():
        for seed in seeds:
            for trial in trials_of(budget, rates, events, seed, records):
                if len(records) == last:
                    return
                record = run_trial(config, trial, base, work, extras=budget.extras_of(trial))
                records.append(record)
                with path.open("a") as file:
                    file.write(json.dumps(record) + "\n")
                print(json.dumps(record), flush=True)


def _chosen_sets(budget: Budget, names: str) -> Budget:
    """The budget with the sets of these names, separated by commas; all sets if empty."""
    if not names:
        return budget
    chosen = tuple(events for events in budget.event_sets if events.name in names.split(","))
    return replace(budget, event_sets=chosen)


def main() -> None:
    """Run the trials and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="table of the utterances, gzipped")
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--sets", default="", help="names of sets; all by default")
    parser.add_argument(
        "--max-trials", type=int, default=sys.maxsize, help="stop after this number of trials"
    )
    parser.add_argument("--small", action="store_true", help="only check that the benchmark runs")
    arguments = parser.parse_args()
    transcripts = find_transcripts(arguments.data)
    rates = SMALL_RATES if arguments.small else read_rates(RATES)
    work = WORK / "small" if arguments.small else WORK
    run(
        transcripts,
        import_base(),
        work,
        budget=_chosen_sets(SMALL if arguments.small else Budget(), arguments.sets),
        rates=rates,
        seeds=[int(seed) for seed in arguments.seeds.split(",")],
        max_trials=arguments.max_trials,
        path=work / "small.jsonl" if arguments.small else HERE / "results.jsonl",
    )
    if not arguments.small:
        write_report(read_results(HERE / "results.jsonl"), HERE)


if __name__ == "__main__":
    main()
