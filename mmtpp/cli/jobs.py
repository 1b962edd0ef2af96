"""The jobs: their functions and their required settings.

``jobs/NAME.py`` and ``mmtpp NAME`` both start a job from here. The module of a job is imported
after its settings are read, so ``--help`` and ``--dry-run`` need neither Ray nor torch.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module

from mmtpp.cli.extras import require_extras
from mmtpp.cli.run_job import run_job
from mmtpp.config.job_checks import check_finetune, check_predict, check_prepare, check_training
from mmtpp.config.schema import RunConfig
from mmtpp.config.stream_checks import check_stream
from mmtpp.runtime.fast_imports import fast_imports


@dataclass(frozen=True, slots=True)
class Job:
    """One job.

    Attributes:
        module: Module of the function that runs the job.
        function: Name of the function, which takes a ``RunConfig`` and returns the result.
        required: Settings that must not be empty. Their default is an empty text.
        description: Description in ``--help``, one sentence.
        extras: Optional packages that the job needs, keys of ``extras.EXTRAS``.
        check: Check of the job's settings against each other, also in a dry run; None where the
            checks of ``required`` and of the sections are all.
    """

    module: str
    function: str
    required: tuple[str, ...]
    description: str
    extras: tuple[str, ...] = ()
    check: Callable[[RunConfig], None] | None = None


JOBS = {
    "prepare": Job(
        "mmtpp.data.prepare",
        "prepare",
        ("source.uri", "store.uri"),
        "Prepare an event store: read raw events and images, write tokenised sequences.",
        check=check_prepare,
    ),
    "pretrain": Job(
        "mmtpp.train.launch",
        "pretrain",
        ("store.uri", "run.storage_uri"),
        "Train a language model on event sequences (stage 1), an expert, or a soft model.",
        ("train", "track"),
        check_training,
    ),
    "finetune": Job(
        "mmtpp.train.launch",
        "finetune",
        ("store.uri", "run.storage_uri"),
        "Train to forecast the time, the type and the text of the next event (stage 2).",
        ("train", "track"),
        check_finetune,
    ),
    "combine": Job(
        "mmtpp.evaluate.combine",
        "combine",
        ("store.uri", "run.storage_uri", "model.path", "model.expert"),
        "Mix a fine-tuned language model with a temporal expert: fit the gate between them.",
        ("track",),
    ),
    "evaluate": Job(
        "mmtpp.evaluate.evaluate",
        "evaluate",
        ("store.uri", "run.storage_uri", "model.path"),
        "Score a trained model on held-out sequences and compare it with baselines.",
        ("track",),
    ),
    "update": Job(
        "mmtpp.update.update",
        "update",
        ("store.uri", "run.storage_uri", "update.model", "update.new_from"),
        "Continue a forecaster on new events, and promote it if it is better.",
        ("train", "track"),
    ),
    "prequential": Job(
        "mmtpp.update.prequential",
        "prequential",
        ("store.uri", "run.storage_uri"),
        "Compare ways to keep an expert up to date: forecast each period, then learn from it.",
        ("train", "track"),
    ),
    "predict": Job(
        "mmtpp.predict.predict",
        "predict",
        ("run.storage_uri", "model.path"),
        "Forecast the next event of every sequence in your own event files.",
        check=check_predict,
    ),
    "stream": Job(
        "mmtpp.stream.stream_job",
        "stream",
        ("stream.input", "stream.output"),
        "Land events that arrive over time, in a folder or in Kafka, exactly once and in order.",
        check=check_stream,
    ),
    "export": Job(
        "mmtpp.predict.export",
        "export",
        ("model.path", "model.adapter", "run.storage_uri"),
        "Merge a LoRA adapter into its base: a Hugging Face folder for transformers and vLLM.",
    ),
}


def run_named_job(
    name: str, argv: Sequence[str] | None = None, *, example: str = "", prog: str | None = None
) -> int:
    """Run a job of ``JOBS`` from its command line.

    Args:
        name: Key of ``JOBS``.
        argv: Arguments; ``sys.argv`` when None.
        example: Text of ``--help`` instead of the description of the job.
        prog: Name of the command in ``--help``; None for that of the process.

    Returns:
        Exit status: 0, or 1 after an error that the user can fix.
    """
    job = JOBS[name]

    def run(config: RunConfig) -> Mapping[str, object]:
        require_extras(job.extras, command=name)
        with fast_imports():
            module = import_module(job.module)
        return getattr(module, job.function)(config)

    return run_job(
        example or job.description,
        run,
        name=name,
        required=job.required,
        check=job.check,
        argv=argv,
        prog=prog,
    )
