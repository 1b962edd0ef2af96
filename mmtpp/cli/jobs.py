"""The jobs: what each one runs and which settings it cannot do without.

``jobs/NAME.py`` and ``mmtpp NAME`` both start a job from here. A job's module is imported after its
settings are read, so that ``--help`` and ``--dry-run`` need neither Ray nor torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module

from mmtpp.cli.run_job import run_job


@dataclass(frozen=True, slots=True)
class Job:
    """One job.

    Attributes:
        module: Module of the function that does the work.
        function: Name of the function; takes a ``RunConfig``, returns the result.
        required: Settings that have no default.
        description: One sentence, for ``--help``.
    """

    module: str
    function: str
    required: tuple[str, ...]
    description: str


JOBS = {
    "prepare": Job(
        "mmtpp.data.prepare",
        "prepare",
        ("source.uri", "store.uri"),
        "Prepare an event store: raw events and images in, tokenised sequences out.",
    ),
    "pretrain": Job(
        "mmtpp.train.launch",
        "pretrain",
        ("store.uri", "run.storage_uri"),
        "Train on compressed event sequences: a whole tiny model, or LoRA on a base (stage 1).",
    ),
    "finetune": Job(
        "mmtpp.train.launch",
        "finetune",
        ("store.uri", "run.storage_uri"),
        "Train to forecast when the next event comes, its type and its text (stage 2).",
    ),
    "evaluate": Job(
        "mmtpp.evaluate.evaluate",
        "evaluate",
        ("store.uri", "run.storage_uri", "model.path"),
        "Score a trained model on held-out sequences and compare it with baselines.",
    ),
    "predict": Job(
        "mmtpp.predict.predict",
        "predict",
        ("run.storage_uri", "model.path"),
        "Forecast the next event of every sequence in a user's own event files.",
    ),
    "export": Job(
        "mmtpp.predict.export",
        "export",
        ("model.path", "model.adapter", "run.storage_uri"),
        "Merge a LoRA adapter into its base: a Hugging Face folder for transformers and vLLM.",
    ),
}


def run_named_job(name: str, argv: Sequence[str] | None = None, *, example: str = "") -> int:
    """Run a job of ``JOBS`` from its command line.

    Args:
        name: Key of ``JOBS``.
        argv: Arguments; ``sys.argv`` when None.
        example: Text of ``--help`` in place of the job's description.

    Returns:
        Exit status: 0, or 1 after an error a user can act on.
    """
    job = JOBS[name]

    def run(config):
        return getattr(import_module(job.module), job.function)(config)

    return run_job(example or job.description, run, name=name, required=job.required, argv=argv)
