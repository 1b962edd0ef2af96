"""Chooses the learning rates of the models on one validation sequence.

    python -m benchmarks.pretrained.learning_rates [--data TRANSCRIPTS] [--only MODEL]

Each model is trained with the learning rates of ``rates.TRIED``. Finished trials are kept in
``learning_rates.jsonl`` next to this file.
"""

import argparse
import json
import os
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("RAY_AUTH_MODE", "token")  # Ray reads it when it is imported

from benchmarks.pretrained.event_sets import TRANSCRIPTS, EventSet, find_transcripts
from benchmarks.pretrained.rates import RATES, TRIED, read_trials
from benchmarks.pretrained.run import WORK, Budget, configuration, import_base
from benchmarks.pretrained.trial import Trial, run_trial
from benchmarks.quality.trial import start_engine
from mmtpp.data.prepare import prepare

STEPS = 20


def main() -> None:
    """Run the unfinished trials."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="table of the utterances, gzipped")
    parser.add_argument("--only", default="", help="model, or part of its name")
    arguments = parser.parse_args()
    transcripts, base = find_transcripts(arguments.data), import_base()
    budget = replace(Budget(), test_sequences=1)
    config = configuration(transcripts, budget, base, WORK, EventSet(TRANSCRIPTS))
    prepare(config)
    start_engine()
    done = {(trial["model"], trial["learning_rate"]) for trial in read_trials(RATES)}
    for model, rates in TRIED.items():
        for rate in rates:
            if arguments.only not in model or (model, rate) in done:
                continue
            trial = Trial(model, TRANSCRIPTS, 1.0, 0, STEPS, rate)
            record = run_trial(config, trial, base, WORK, split="validation")
            with RATES.open("a") as file:
                file.write(json.dumps(record) + "\n")
            print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main()
