"""What the driver hands to every Train worker."""

from dataclasses import dataclass

from mmtpp.data.samples.assemble_settings import AssembleSettings
from mmtpp.model.record import Answers
from mmtpp.track.mlflow_tracker import RunIdentity

PROGRESS_FILE = "progress.json"  # of a checkpoint


@dataclass(frozen=True, slots=True)
class Task:
    """Everything a worker needs to know; plain values that survive pickling.

    Attributes:
        config: the resolved configuration as a tree.
        run: its name, folder and MLflow run.
        train: how training samples are made.
        validation: how validation samples are made; None to skip validation.
        train_plan_uri: which training samples.
        validation_plan_uri: which validation samples.
        tokenizer_json: of the vocabulary.
        type_codes: types that occur in the store.
        output_uri: where the trained model or adapter goes.
        precision: ``float32`` or ``bfloat16``.
        answers: what the model will answer, recorded beside it; None in stage 1.
        tick: tick of the clock, in the source's unit, where labels are smoothed; 0 for none.
        start_uri: checkpoint of another run that a fresh run starts from; empty for none.
        reports_validation: whether validations go to Ray Train's callbacks, for whom they then
            wait until the checkpoints before them are uploaded.
    """

    config: dict[str, object]
    run: RunIdentity
    train: AssembleSettings
    validation: AssembleSettings | None
    train_plan_uri: str
    validation_plan_uri: str
    tokenizer_json: str
    type_codes: list[int]
    output_uri: str
    precision: str
    answers: Answers | None = None
    tick: float = 0.0
    start_uri: str = ""
    reports_validation: bool = False


def best_uri(task: Task, step: int) -> str:
    """Where the model of the best validation is kept, made after so many steps."""
    return f"{task.output_uri}-best-{step:06d}"
