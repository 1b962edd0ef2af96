"""What the driver of a training sends to every worker."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mmtpp.config.schema import LoraSection
from mmtpp.data.samples.sample_settings import SampleSettings
from mmtpp.model.folders.record import TrainedTasks
from mmtpp.runtime.start_up import StartUp
from mmtpp.track.tracker import RunIdentity

if TYPE_CHECKING:
    from mmtpp.soft.soft_start import SoftStart  # imports torch, which drivers do not need

PROGRESS_FILE = "progress.json"  # in the folder of a checkpoint

OutputKind = Literal["model", "adapter"]
"""The result of a training: a whole model, or an adapter of its base model."""


@dataclass(frozen=True, slots=True)
class WorkerInputs:
    """Everything a worker needs, as plain values that can be pickled.

    Attributes:
        config: The resolved configuration as a tree.
        run: Name, folder and MLflow run of the run.
        train_sample_settings: Settings of the training samples.
        validation_sample_settings: Settings of the validation samples; None skips validation.
        train_plan_uri: Plan of the training samples.
        validation_plan_uri: Plan of the validation samples.
        tokenizer_json: Tokenizer of the vocabulary.
        type_codes: Codes of the event types that occur in the store.
        output_uri: Folder for the trained model or adapter.
        trained_tasks: Tasks the model is trained on, recorded in its folder; None in stage 1.
        soft: The model of soft tokens; None for another template.
        precision: ``float32`` or ``bfloat16``.
        start_uri: Checkpoint of another run that a fresh run starts from; empty for none.
        reports_validation: Whether Ray Train's callbacks receive validations. A report waits until
            earlier checkpoints are uploaded.
        start_up: The start-up so far.
    """

    config: dict[str, object]
    run: RunIdentity
    train_sample_settings: SampleSettings
    validation_sample_settings: SampleSettings | None
    train_plan_uri: str
    validation_plan_uri: str
    tokenizer_json: str
    type_codes: list[int]
    output_uri: str
    trained_tasks: TrainedTasks | None
    soft: "SoftStart | None"
    precision: str
    start_uri: str
    reports_validation: bool
    start_up: StartUp


def best_uri(output_uri: str, step: int) -> str:
    """Folder of the model with the best validation, which was trained for ``step`` steps.

    Args:
        output_uri: Folder of the last model.
        step: Number of updates, above 0.
    """
    return f"{output_uri}-best-{step:06d}"


def output_kind(lora: LoraSection) -> OutputKind:
    """The result of a training that may adapt its model."""
    return "adapter" if lora.rank else "model"
