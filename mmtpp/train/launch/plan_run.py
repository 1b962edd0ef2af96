"""Plans a training run: its samples, its validation, and the task that every worker receives."""

import logging
from dataclasses import replace

import numpy as np
import pyarrow as pa

from mmtpp.config.schema import RunConfig
from mmtpp.core.errors import DataError
from mmtpp.core.seeds import seed_from
from mmtpp.core.supervision import AllTokens, Supervision
from mmtpp.data.samples.assemble_settings import AssembleSettings
from mmtpp.data.samples.interval_range import interval_range
from mmtpp.data.samples.make_plan import make_plan
from mmtpp.data.samples.plan import Plan, load_plan
from mmtpp.data.settings import assemble_settings
from mmtpp.model.record import TrainedTasks
from mmtpp.model.vocabulary import Vocabulary
from mmtpp.storage.manifest import Manifest
from mmtpp.storage.paths import exists, join
from mmtpp.track.mlflow_tracker import RunIdentity
from mmtpp.train.launch.check_settings import TrainingInputs
from mmtpp.train.task import Task, TrainingJob, output_kind

logger = logging.getLogger(__name__)

PLAN_FILE, VALIDATION_PLAN_FILE = "plan.parquet", "validation_plan.parquet"


def plan_training(
    config: RunConfig, inputs: TrainingInputs, run_uri: str, supervision: Supervision
) -> tuple[AssembleSettings, Plan]:
    """The training samples: read back when the run was started before, planned otherwise.

    Raises:
        DataError: The run was started with other data or settings.
    """
    settings = assemble_settings(
        config.sample_sections, inputs.manifest, split="train", supervision=supervision
    )
    uri = join(run_uri, PLAN_FILE)
    if not exists(uri):
        plan = make_plan(settings, inputs.vocabulary.token_ids())
        plan.save(uri)
        return settings, plan
    plan = load_plan(uri)
    if plan.fingerprint != settings.fingerprint:
        raise DataError(
            f"this run was started on data {plan.fingerprint[:16]}, the data is now "
            f"{settings.fingerprint[:16]}",
            where=uri,
            cause="the store or a setting that shapes samples changed under the same run name",
            setting="run.name: choose another, or leave it empty",
        )
    return settings, plan


def plan_validation(
    config: RunConfig,
    manifest: Manifest,
    vocabulary: Vocabulary,
    run_uri: str,
    *,
    supervision: Supervision,
) -> AssembleSettings | None:
    """Plan the validation on whole sequences; the choice does not depend on Delta.

    Returns:
        Settings of the validation samples; None without validation.
    """
    num_wanted = config.training.validation_sequences
    if not num_wanted:
        return None
    if not manifest.sequences_by_split["validation"]:
        logger.warning(
            "the store has no validation events, so there is no validation (prepared with split.by "
            "= %s; split.validation_fraction = %g)",
            manifest.split_by,
            config.split.validation_fraction,
        )
        return None
    settings = assemble_settings(
        config.sample_sections, manifest, split="validation", supervision=supervision
    )
    # evaluation.max_sequences limits the job `evaluate`, not validation
    settings = replace(settings, max_sequences=0)
    plan = make_plan(settings, vocabulary.token_ids())
    addresses = plan.windows.select(["file", "group", "row"]).to_pylist()
    names = [(address["file"], address["group"], address["row"]) for address in addresses]
    sequences = sorted(set(names))
    order = np.random.default_rng(seed_from("validation") % 2**63).permutation(len(sequences))
    chosen = {sequences[index] for index in order[:num_wanted].tolist()}
    windows = plan.windows.filter(pa.array([name in chosen for name in names]))
    samples = [[index] for index in range(len(windows))]
    plan = replace(plan, windows=windows.combine_chunks(), samples=samples)
    plan.save(join(run_uri, VALIDATION_PLAN_FILE))
    return settings


def build_task(
    job: TrainingJob,
    run: RunIdentity,
    inputs: TrainingInputs,
    samples: AssembleSettings,
    *,
    precision: str,
) -> Task:
    """The task of every worker, with the validation planned.

    Args:
        job: The training job.
        run: Name and folder of its run.
        inputs: Store that the job reads.
        samples: Settings of the training samples.
        precision: ``float32`` or ``bfloat16``.
    """
    config, manifest, vocabulary = job.config, inputs.manifest, inputs.vocabulary
    validation = plan_validation(
        config, manifest, vocabulary, run.run_uri, supervision=job.supervision
    )
    asks_questions = not isinstance(job.supervision, AllTokens)
    needs_intervals = asks_questions or config.training.time_smoothing
    intervals = interval_range(samples) if needs_intervals else None
    type_codes = [code for code, count in enumerate(manifest.type_counts) if count]
    trained_tasks = None
    if asks_questions and intervals is not None:
        trained_tasks = TrainedTasks(
            tasks=config.tasks.asked,
            intervals=intervals,
            type_codes=tuple(type_codes),
            type_names=tuple(manifest.type_names),
            seconds_per_unit=manifest.seconds_per_unit,
            history=config.tasks.history > 0,
        )
    return Task(
        config=config.model_dump(mode="json"),
        run=run,
        train=samples,
        validation=validation,
        train_plan_uri=join(run.run_uri, PLAN_FILE),
        validation_plan_uri=join(run.run_uri, VALIDATION_PLAN_FILE),
        tokenizer_json=vocabulary.tokenizer_json,
        type_codes=type_codes,
        output_uri=join(run.run_uri, output_kind(config.lora)),
        trained_tasks=trained_tasks,
        tick=intervals.tick if intervals else 0.0,
        precision=precision,
        start_uri=job.start_uri,
        reports_validation=bool(job.callbacks),
    )
