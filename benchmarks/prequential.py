"""Experts that keep up with new events: five strategies on three real sets, one core.

Every period is forecast before it is learned. The settings of each strategy are chosen on the
validation sequences of one seed; the figures are those of all other sequences, over three seeds.
Finished trials are kept in the folder of the quality benchmark's stores.

    python -m benchmarks.prequential

writes a section of ``prequential.md`` for each set. It needs ``MMTPP_TEST_DATA``, as the quality
benchmark does.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.measure import finish_section, machine
from benchmarks.quality.results import BUDGET
from benchmarks.quality.run import WORK, configuration, prepare_set
from benchmarks.quality.sets import DataSet, data_sets
from mmtpp.config.load import with_values
from mmtpp.config.schema import RunConfig
from mmtpp.data.prepared_store import load_store
from mmtpp.evaluate.scores.paired_difference import paired_difference
from mmtpp.expert.expert_folder import Expert
from mmtpp.track.tracker import RunIdentity
from mmtpp.update.prequential import Timeline, read_timeline, run_strategy, train_initial
from mmtpp.update.prequential_results import StrategyResult

RESULTS = WORK / "prequential.jsonl"
REPORT = Path(__file__).with_suffix(".md")
SEEDS = (0, 1, 2)
SEEDS_OF = {"retrained": SEEDS[:1]}
"""Fewer seeds: new trainings in every period take an hour."""
DAY_S = 86_400.0
# days in a period, and periods that are learned before the first forecast
PERIODS = {"flights": (365 / 12, 3), "taxi": (7.0, 1), "stackoverflow": (91.0, 2)}
CANDIDATES: dict[str, list[dict[str, Any]]] = {
    "fine_tuned": [{"update.learning_rate": rate} for rate in (1e-3, 3e-3, 1e-2)],
    "replay": [{"update.learning_rate": rate} for rate in (1e-3, 3e-3, 1e-2)],
    "prompts": [{"update.prompt_learning_rate": rate} for rate in (3e-2, 1e-1, 3e-1)],
}
STRATEGIES = ("frozen", "retrained", *CANDIDATES)


@dataclass(frozen=True, slots=True)
class Sums:
    """Losses of a strategy by sequence.

    Attributes:
        names: (S,) names of the sequences, in order.
        nll: (S,) sums of time and type, in nats.
        num_events: (S,) numbers of events.
    """

    names: np.ndarray
    nll: np.ndarray
    num_events: np.ndarray

    @classmethod
    def of_result(cls, result: StrategyResult) -> "Sums":
        """Sums over all periods."""
        losses = result.losses
        names, place = np.unique(
            losses["sequence_id"].to_numpy(zero_copy_only=False), return_inverse=True
        )
        nll = losses["time_nll"].to_numpy() + losses["type_nll"].to_numpy()
        return cls(names, np.bincount(place, nll), np.bincount(place, losses["events"].to_numpy()))

    def select(self, names: set[str], *, inside: bool) -> "Sums":
        """The sequences inside or outside a set of names."""
        chosen = np.array([(name in names) == inside for name in self.names.tolist()])
        return Sums(self.names[chosen], self.nll[chosen], self.num_events[chosen])

    @property
    def mean(self) -> float:
        """Nats an event."""
        return float(self.nll.sum() / self.num_events.sum())


class Trials:
    """Trials of one set, in this process; finished ones are read from the file of results.

    Args:
        data: The set.
        records: All records, to which new ones are added.
    """

    def __init__(self, data: DataSet, records: list[dict[str, Any]]) -> None:
        self._data, self._records = data, records
        self._initial: dict[int, Expert] = {}
        prepare_set(data, BUDGET)
        config = configuration(data, BUDGET)
        self._store = load_store(config.store.uri)
        days, first_periods = PERIODS[data.name]
        self._config = with_values(
            config,
            {
                "model.preset": "expert",
                "prequential.period": days * DAY_S / self._store.manifest.seconds_per_unit,
                "prequential.first_periods": first_periods,
            },
        )

    def run(self, strategy: str, seed: int, settings: dict[str, Any]) -> dict[str, Any]:
        """The record of a trial, new or finished."""
        key = {
            "set": self._data.name,
            "strategy": strategy,
            "seed": seed,
            "settings": settings,
        }
        for record in self._records:
            if all(record[name] == value for name, value in key.items()):
                return record
        print(f"{self._data.name}, {strategy}, seed {seed}, {settings}", file=sys.stderr)
        config = with_values(self._config, {**settings, "training.seed": seed})
        timeline = self._timeline(config)
        if seed not in self._initial:
            self._initial[seed] = train_initial(timeline)
        result = run_strategy((timeline, self._initial[seed]), strategy)
        record = {**key, **self._measure(timeline, result)}
        self._records.append(record)
        with RESULTS.open("a") as file:
            file.write(json.dumps(record) + "\n")
        return record

    def _timeline(self, config: RunConfig) -> Timeline:
        return read_timeline(config, self._store, RunIdentity("", "", ""))

    def _measure(self, timeline: Timeline, result: StrategyResult) -> dict[str, Any]:
        validation = {sequence.sequence_id for sequence in timeline.learning.validation}
        sums = Sums.of_result(result)
        others = sums.select(validation, inside=False)
        return {
            "validation_nll": sums.select(validation, inside=True).mean,
            "nll": others.mean,
            "past_nll": result.past.nll,
            "seconds": sum(result.seconds),
            "periods": [[period.start, period.num_events, period.nll] for period in result.scores],
            "names": others.names.tolist(),
            "sums": others.nll.round(4).tolist(),
            "events": others.num_events.tolist(),
        }


def choose(trials: Trials) -> dict[str, dict[str, Any]]:
    """Settings of each strategy, by the losses of the validation sequences."""
    chosen: dict[str, dict[str, Any]] = {"frozen": {}, "retrained": {}}
    for strategy, candidates in CANDIDATES.items():
        records = [trials.run(strategy, SEEDS[0], settings) for settings in candidates]
        chosen[strategy] = min(records, key=lambda record: record["validation_nll"])["settings"]
    return chosen


def run_set(trials: Trials) -> dict[str, list[dict[str, Any]]]:
    """Records of each strategy, one for each seed."""
    chosen = choose(trials)
    return {
        strategy: [
            trials.run(strategy, seed, chosen[strategy]) for seed in SEEDS_OF.get(strategy, SEEDS)
        ]
        for strategy in STRATEGIES
    }


def set_table(name: str, records: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
    """Lines of the report about one set."""
    days, first_periods = PERIODS[name]
    frozen, retrained = records["frozen"], records["retrained"]
    num_events = int(sum(frozen[0]["events"]))
    yield f"## {name}"
    yield ""
    yield (
        f"{len(frozen[0]['periods'])} periods of {days:.0f} days after {first_periods * days:.0f} "
        f"days that are learned first; {num_events:,} events of {len(frozen[0]['names'])} "
        "sequences, each forecast before any strategy learned it."
    )
    yield ""
    yield (
        "| strategy | nats per event | minus frozen [95 %] | first period, test sequences, at the "
        "end | CPU s of learning | of retraining | chosen |"
    )
    yield "|---|---|---|---|---|---|---|"
    for strategy, runs in records.items():
        difference = ""
        if strategy != "frozen":
            same_seeds = frozen[: len(runs)]
            paired = paired_difference(_mean_sums(runs), _mean_sums(same_seeds), _events(frozen))
            difference = f"{paired.value:+.3f} [{paired.low:+.3f}, {paired.high:+.3f}]"
        share = _mean(runs, "seconds") / _mean(retrained, "seconds")
        settings = ", ".join(f"{key} {value:g}" for key, value in runs[0]["settings"].items())
        yield (
            f"| {strategy} | {_with_spread(runs, 'nll')} | {difference} "
            f"| {_mean(runs, 'past_nll'):.3f} | {_mean(runs, 'seconds'):.0f} | {share:.1%} "
            f"| {settings} |"
        )
    yield ""
    yield "By period, nats per event; with the validation sequences:"
    yield ""
    yield f"| events | {' | '.join(records)} |"
    yield f"|---|{'---|' * len(records)}"
    for index, (_, events, _) in enumerate(frozen[0]["periods"]):
        values = [np.mean([run["periods"][index][2] for run in runs]) for runs in records.values()]
        yield f"| {events:,} | {' | '.join(f'{value:.3f}' for value in values)} |"
    yield ""


def _mean(runs: Sequence[dict[str, Any]], name: str) -> float:
    return float(np.mean([run[name] for run in runs]))


def _with_spread(runs: Sequence[dict[str, Any]], name: str) -> str:
    """Mean and standard deviation over seeds; one seed has no deviation."""
    if len(runs) == 1:
        return f"{runs[0][name]:.3f}"
    return f"{_mean(runs, name):.3f} ± {np.std([run[name] for run in runs], ddof=1):.3f}"


def _mean_sums(runs: Sequence[dict[str, Any]]) -> np.ndarray:
    """Sums by sequence, the mean over seeds; the sequences are in the order of their names."""
    return np.mean([run["sums"] for run in runs], axis=0)


def _events(runs: Sequence[dict[str, Any]]) -> np.ndarray:
    return np.array(runs[0]["events"])


def main() -> int:
    """Run the trials that are missing and write the report; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", nargs="+", choices=PERIODS, default=list(PERIODS))
    names: list[str] = parser.parse_args().sets
    torch.set_num_threads(1)
    records = [json.loads(line) for line in RESULTS.open()] if RESULTS.exists() else []
    sets = data_sets(WORK)
    for name in names:
        if name not in sets:
            print(f"{name} is left out: set MMTPP_TEST_DATA", file=sys.stderr)
            continue
        heading, *lines = set_table(name, run_set(Trials(sets[name], records)))
        how = f"`python -m benchmarks.prequential --sets {name}`; {machine('torch')}."
        finish_section("\n".join([heading, "", how, *lines]), REPORT)
    return 0


if __name__ == "__main__":
    sys.exit(main())
