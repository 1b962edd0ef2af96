"""This project and its peers on the same data and machine, in one run.

    make bench-peers

Parts: ``training``, ``feeding``, ``evaluation`` and ``sweeps``. Every trial is a process of its
own, in the environment of the peer (``environments.py``). Finished trials are kept in
``$MMTPP_HOME/peers/work``; a run that was interrupted continues, and a run with all trials only
writes its sections of the report ``benchmarks/peers.md`` again. Delete this folder to measure
again. Needs MMTPP_TEST_DATA for the danmaku and the earthquakes.

    python -m benchmarks.peers.run --smoke --work FOLDER --parts feeding

``--smoke`` checks in a few minutes that everything runs, and writes the report into the folder.
"""

import os

os.environ.setdefault("RAY_AUTH_MODE", "token")  # Ray reads it on import

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.measure import finish_section, machine
from benchmarks.peers import evaluation_part, feed_part, sweep_part, training_part
from benchmarks.peers.bench import Bench
from benchmarks.peers.trials import TrialFile
from cluster.local import default_home

HEAD = (
    "# Peers",
    "",
    "Every trial is a process of its own. The peers' versions are in `benchmarks/peers/*.txt`. A "
    "ratio is that of the medians' trials in the same repetition. Sections may be of different "
    "machines.",
)
RESULT = Path(__file__).parents[1] / "peers.md"
NOT_MEASURED = Path(__file__).with_name("not_measured.json")  # what was tried, and why it failed


def _training(bench: Bench) -> list[str]:
    return training_part.section(training_part.measure(bench))


def _feeding(bench: Bench) -> list[str]:
    return feed_part.section(feed_part.measure(bench))


def _evaluation(bench: Bench) -> list[str]:
    return evaluation_part.section(evaluation_part.measure(bench))


def _sweeps(bench: Bench) -> list[str]:
    return sweep_part.section(sweep_part.measure(bench))


PARTS: dict[str, Callable[[Bench], list[str]]] = {
    "training": _training,
    "feeding": _feeding,
    "evaluation": _evaluation,
    "sweeps": _sweeps,
}


def main() -> int:
    """Run the parts, print and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="only check that everything runs")
    parser.add_argument("--work", type=Path, help="folder of the trials; of the report if --smoke")
    parser.add_argument("--parts", default=",".join(PARTS), help="parts, separated by commas")
    arguments = parser.parse_args()
    environments = default_home() / "peers"
    work = arguments.work.absolute() if arguments.work else environments / "work"
    work.mkdir(parents=True, exist_ok=True)
    bench = Bench(TrialFile(work / "trials.jsonl"), environments, work, arguments.smoke)
    used = f"{len(os.sched_getaffinity(0))} used"
    result = work / "peers.md" if arguments.smoke else RESULT
    finish_section("\n".join([*HEAD, ""]), result)
    for name in arguments.parts.split(","):
        print(f"== {name}", flush=True)
        heading, *lines = PARTS[name](bench)
        how = (
            f"`python -m benchmarks.peers.run --parts {name}`; "
            f"{machine('torch', 'transformers', 'ray', used=used)}. Median [range] of "
            f"{bench.repetitions} interleaved repetitions."
        )
        finish_section("\n".join([heading, "", how, *lines, ""]), result)
    reasons: dict[str, str] = json.loads(NOT_MEASURED.read_text(encoding="utf-8"))
    missing = [f"- **{name}**: {why}" for name, why in reasons.items()]
    return finish_section("\n".join(["## Not measured", "", *missing, ""]), result)


if __name__ == "__main__":
    sys.exit(main())
