"""The jobs: their functions and their required settings.

``jobs/NAME.py`` and ``mmtpp NAME`` both start a job from here. The module of a job is imported
after its settings are read, so ``--help`` and ``--dry-run`` need neither Ray nor torch.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
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
        description: Description in ``--help``, one sentence.
        module: Module of the function that runs the job.
        function: Name of the function, which takes a ``RunConfig`` and returns the result.
        required: Settings that must not be empty. Their default is an empty text.
        extras: Optional packages that the job needs, keys of ``extras.EXTRAS``.
        check: Check of the job's settings against each other, also in a dry run; None where the
            checks of ``required`` and of the sections are all.
    """

    description: str
    _: KW_ONLY
    module: str
    function: str
    required: tuple[str, ...]
    extras: tuple[str, ...] = ()
    check: Callable[[RunConfig], None] | None = None


JOBS = {
    "prepare": Job(
        "Prepare an event store: read raw events and images, write tokenised sequences.",
        module="mmtpp.data.prepare",
        function="prepare",
        required=("source.uri", "store.uri"),
        check=check_prepare,
    ),
    "pretrain": Job(
        "Train a language model on event sequences (stage 1), an expert, or a soft model.",
        module="mmtpp.train.launch",
        function="pretrain",
        required=("store.uri", "run.storage_uri"),
        extras=("train", "track"),
        check=check_training,
    ),
    "finetune": Job(
        "Train to forecast the time, the type and the text of the next event (stage 2).",
        module="mmtpp.train.launch",
        function="finetune",
        required=("store.uri", "run.storage_uri"),
        extras=("train", "track"),
        check=check_finetune,
    ),
    "combine": Job(
        "Mix a fine-tuned language model with a temporal expert: fit the gate between them.",
        module="mmtpp.evaluate.combine",
        function="combine",
        required=("store.uri", "run.storage_uri", "model.path", "model.expert"),
        extras=("track",),
    ),
    "evaluate": Job(
        "Score a trained model on held-out sequences and compare it with baselines.",
        module="mmtpp.evaluate.evaluate",
        function="evaluate",
        required=("store.uri", "run.storage_uri", "model.path"),
        extras=("track",),
    ),
    "update": Job(
        "Continue a forecaster on new events, and promote it if it is better.",
        module="mmtpp.update.update",
        function="update",
        required=("store.uri", "run.storage_uri", "update.model", "update.new_from"),
        extras=("train", "track"),
    ),
    "prequential": Job(
        "Compare ways to keep an expert up to date: forecast each period, then learn from it.",
        module="mmtpp.update.prequential",
        function="prequential",
        required=("store.uri", "run.storage_uri"),
        extras=("train", "track"),
    ),
    "predict": Job(
        "Forecast the next event of every sequence in your own event files.",
        module="mmtpp.predict.predict",
        function="predict",
        required=("run.storage_uri", "model.path"),
        check=check_predict,
    ),
    "stream": Job(
        "Land events that arrive over time, in a folder or in Kafka, exactly once and in order.",
        module="mmtpp.stream.stream_job",
        function="stream",
        required=("stream.input", "stream.output"),
        check=check_stream,
    ),
    "export": Job(
        "Merge a LoRA adapter into its base: a Hugging Face folder for transformers and vLLM.",
        module="mmtpp.predict.export",
        function="export",
        required=("model.path", "model.adapter", "run.storage_uri"),
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
        run,
        name=name,
        description=example or job.description,
        required=job.required,
        check=job.check,
        argv=argv,
        prog=prog,
    )
