"""A training on the driver: first as it is asked for, then as it is planned."""

from dataclasses import dataclass, field, replace

from ray.train import UserCallback

from mmtpp.config.job_checks import check_finetune, check_training
from mmtpp.config.load import with_values
from mmtpp.config.schema import RunConfig
from mmtpp.core.representation.supervision import AllTokens, Supervision
from mmtpp.core.split import parse_instant
from mmtpp.data.from_config import build_training_questions
from mmtpp.data.samples.sample_settings import NewTargets
from mmtpp.runtime.hardware import Hardware
from mmtpp.runtime.start_up import StartUp
from mmtpp.storage.manifest import Manifest
from mmtpp.train.expert_inputs import ExpertInputs
from mmtpp.train.worker_inputs import OutputKind, WorkerInputs


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """A training as it is asked for.

    Attributes:
        name: ``pretrain``, ``finetune`` or ``update``.
        config: The whole configuration.
        callbacks: Ray Train callbacks that receive every validation; a trial of a sweep has them.
        start_uri: Folder of a checkpoint of another run on the same samples. A fresh run continues
            from there with this run's optimiser settings. Empty for none.
        start_up: The start-up so far.
    """

    name: str
    config: RunConfig
    callbacks: tuple[UserCallback, ...] = ()
    start_uri: str = ""
    start_up: StartUp = field(default_factory=StartUp.begin)

    @property
    def is_stage_one(self) -> bool:
        """Whether all tokens of sequences are learned, not answers to questions."""
        return self.name == "pretrain"

    @property
    def is_update(self) -> bool:
        """Whether a trained model learns new events."""
        return self.name == "update"

    def check_settings(self) -> None:
        """Check the settings against each other.

        Raises:
            ConfigError: The settings contradict each other.
        """
        check = check_finetune if self.name == "finetune" else check_training
        check(self.config)

    @property
    def supervision(self) -> Supervision:
        """Which tokens are labels and which questions are asked."""
        if self.is_stage_one:
            return AllTokens()
        return build_training_questions(self.config.tasks)

    def new_targets(self, manifest: Manifest) -> NewTargets | None:
        """The new events that an update learns; None for a training on all events.

        Args:
            manifest: Manifest of the store.
        """
        if not self.is_update:
            return None
        update = self.config.update
        start = parse_instant(update.new_from, seconds_per_unit=manifest.seconds_per_unit)
        assert start is not None  # the job requires it
        return NewTargets(start, replay=update.replay)

    def with_value(self, key: str, value: object) -> "TrainingJob":
        """The job with another value of one setting."""
        return replace(self, config=with_values(self.config, {key: value}))

    def with_start_up_part(self, part: str) -> "TrainingJob":
        """The job with a further part of its start-up, which has just ended."""
        return replace(self, start_up=self.start_up.with_part(part))


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedTraining:
    """A training that is ready to start.

    Attributes:
        job: The training as it was asked for, with its number of updates.
        manifest: Manifest of the store.
        hardware: Device and precision of the workers.
        inputs: What every worker receives.
        output_kind: ``model`` or ``adapter``.
        description: Description of the run, in Markdown.
        tags: Further tags of the run, by name.
        metrics: Metrics at step 0, by name.
    """

    job: TrainingJob
    manifest: Manifest
    hardware: Hardware
    inputs: WorkerInputs | ExpertInputs
    output_kind: OutputKind
    description: str
    tags: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)

    def with_mlflow_run(self, run_id: str | None) -> "PlannedTraining":
        """The same training, with its MLflow run. This is the last step on the driver."""
        run = replace(self.inputs.run, mlflow_run_id=run_id)
        start_up = self.inputs.start_up.with_part("tracking")
        return replace(self, inputs=replace(self.inputs, run=run, start_up=start_up))
