"""Time and memory of plans of up to 10^9 events, on the driver and on a worker.

    python -m benchmarks.plan_scale [--events 1e7,1e8,1e9]

The windows are made up, with names as long as those of real stores; 10^9 events take 8 GiB of
memory and 5 GiB of disk, and ten minutes.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.measure import finish, machine
from benchmarks.peers.bench import markdown_table
from benchmarks.plan_scale_trial import EVENTS_PER_WINDOW, MAX_TOKENS

RESULT = Path(__file__).with_suffix(".md")
EVENTS = "1e7,1e8,1e9"
GIB = 1024  # MiB


def measure(part: str, **arguments: object) -> dict[str, float]:
    """Run a trial in a process of its own."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.plan_scale_trial"),
            json.dumps({"part": part, **arguments}),
        ],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def measure_plan(num_events: int) -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
    """Measurements of the driver, of the first worker of a machine, and of the next one."""
    with tempfile.TemporaryDirectory() as folder:
        uri, cache = f"{folder}/plan.parquet", f"{folder}/cache"
        made = measure("make", uri=uri, num_windows=num_events // EVENTS_PER_WINDOW)
        first, second = (measure("load", uri=uri, cache=cache) for _ in range(2))
    return made, first, second


def main() -> int:
    """Measure, print and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", default=EVENTS, help="numbers of events, separated by commas")
    arguments = parser.parse_args()
    driver, worker = [], []
    for text in arguments.events.split(","):
        num_events = int(float(text))
        made, first, second = measure_plan(num_events)
        driver.append(
            (
                f"{num_events:,}",
                f"{num_events // EVENTS_PER_WINDOW:,}",
                f"{made['samples']:,.0f}",
                f"{made['windows_mib'] / GIB:.2f}",
                f"{made['peak_mib'] / GIB:.2f}",
                f"{made['plan_s']:.1f}",
                f"{made['save_s']:.1f}",
                f"{made['file_mib']:,.0f}",
            )
        )
        worker.append(
            (
                f"{num_events:,}",
                f"{first['load_s']:.1f}",
                f"{second['load_s']:.1f}",
                f"{second['order_s']:.1f}",
                f"{second['first_samples_ms']:.1f}",
                f"{second['plan_mib']:,.0f}",
                f"{second['order_mib']:,.0f}",
                f"{first['peak_mib']:,.0f}",
            )
        )
    lines = [
        "# Large plans",
        "",
        f"`python -m benchmarks.plan_scale --events {arguments.events}`; "
        f"{machine('pyarrow', 'numpy')}. Made-up windows of {EVENTS_PER_WINDOW} events in packed "
        f"rows of {MAX_TOKENS:,} tokens; one run each, every part in a process of its own.",
        "",
        "## Driver",
        "",
        "From the windows of all sequences, which Ray Data's tasks have cut, to the saved file. "
        "The peak is that of the whole process, the windows and libraries included.",
        "",
        *markdown_table(
            (
                "events",
                "windows",
                "samples",
                "windows, GiB",
                "peak, GiB",
                "order and pack, s",
                "save, s",
                "file, MiB",
            ),
            driver,
        ),
        "",
        "## Worker",
        "",
        "The first worker of a machine writes the table of a plan of 262,144 windows or more to "
        "the disk cache; the others map it into their memory. Smaller plans are read. *Plan* and "
        "*order* are the private memory of the second worker: where each sample begins, and the "
        "order of the samples of an epoch. The peak is that of the first worker while it loads the "
        "plan, with the pages that it maps, without the memory that it had before.",
        "",
        *markdown_table(
            (
                "events",
                "first load, s",
                "next load, s",
                "order of 1,000 steps, s",
                "first 32 samples, ms",
                "plan, MiB",
                "order, MiB",
                "peak of the first, MiB",
            ),
            worker,
        ),
        "",
    ]
    return finish("\n".join(lines), RESULT)


if __name__ == "__main__":
    sys.exit(main())
