"""What the driver of an expert's training sends to every worker."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mmtpp.config.schema import TrackingSection
from mmtpp.model.folders.record import TrainedTasks
from mmtpp.runtime.start_up import StartUp
from mmtpp.track.tracker import RunIdentity

if TYPE_CHECKING:  # both import torch, which other trainings' drivers do not need
    from mmtpp.expert.fit import ExpertFitSettings
    from mmtpp.expert.read_sequences import SequenceSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class ContinuedTraining:
    """The training of an expert that continues on new events.

    Attributes:
        model_uri: Folder of the expert.
        new_from: Time of the first new event, in the source's unit.
        replay: Number of older training events in an epoch for each new one.
        num_prompts: Number of prompts that are trained; 0 trains the weights of the networks.
        surprise_limit: Surprise limit of the continued expert; used if there are no validation
            events.
    """

    model_uri: str
    new_from: float
    replay: float
    num_prompts: int
    surprise_limit: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertInputs:
    """Everything a worker needs, as plain values that can be pickled.

    Attributes:
        run: Name, folder and MLflow run of the run.
        tracking: Settings of MLflow.
        fit_settings: Settings of the networks and of their training.
        train_sequence_settings: Settings by which the training sequences are read.
        validation_sequence_settings: The same for the validation sequences; None if the store has
            none.
        data_fingerprint: Fingerprint of the store's content.
        calendar: Whether the expert reads the calendar.
        time_zone: IANA name of the calendar's time zone.
        tokenizer_json: Tokenizer of the texts.
        trained_tasks: Tasks, types and intervals, recorded in the folder of the expert.
        output_uri: Folder for the expert.
        card: Page in that folder.
        log_every: Number of updates between two log lines.
        upload_timeout_s: Seconds to retry the upload of a checkpoint.
        reports_validation: Whether Ray Train's callbacks receive validations.
        continued: The expert that is continued; None trains a new one.
        start_up: The start-up so far.
    """

    run: RunIdentity
    tracking: TrackingSection
    fit_settings: "ExpertFitSettings"
    train_sequence_settings: "SequenceSettings"
    validation_sequence_settings: "SequenceSettings | None"
    data_fingerprint: str
    calendar: bool
    time_zone: str
    tokenizer_json: str
    trained_tasks: TrainedTasks
    output_uri: str
    card: str
    log_every: int
    upload_timeout_s: float
    reports_validation: bool
    continued: ContinuedTraining | None = None
    start_up: StartUp = field(default_factory=StartUp.begin)

    @property
    def tick(self) -> float:
        """Tick of the store's clock, in the source's unit; 0 if the times have no tick."""
        return self.train_sequence_settings.sample_settings.store.tick
