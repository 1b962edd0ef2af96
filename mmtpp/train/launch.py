"""The training jobs: configuration in, trained model or adapter out. They run on the driver."""

import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import ray
import ray.train
from ray.exceptions import RayTaskError
from ray.train import CheckpointConfig, FailureConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2.api.exceptions import ControllerError, TrainingFailedError, WorkerGroupError

from mmtpp.config.fingerprint import run_fingerprint, run_name
from mmtpp.config.flat_settings import flat_settings
from mmtpp.config.load import with_values
from mmtpp.config.schema import RunConfig
from mmtpp.core.errors import (
    ClusterError,
    ConfigError,
    MmtppError,
    StoppedError,
    StorageError,
)
from mmtpp.core.seeds import seed_from
from mmtpp.core.supervision import AllTokens, Supervision
from mmtpp.data.samples.assemble_settings import AssembleSettings
from mmtpp.data.samples.interval_range import interval_range
from mmtpp.data.samples.make_plan import make_plan
from mmtpp.data.samples.plan import Plan
from mmtpp.data.settings import assemble_settings, store_vocabulary, training_questions
from mmtpp.model.adapter import check_adapter
from mmtpp.model.folder import load_model_vocabulary
from mmtpp.model.record import Answers, check_template
from mmtpp.model.vocabulary import Vocabulary, check_same_vocabulary
from mmtpp.runtime.hardware import Hardware, choose_hardware, worker_resources, workers
from mmtpp.runtime.interruptions import stops_on_sigterm
from mmtpp.runtime.machines import data_tasks, wait_for
from mmtpp.runtime.session import start_ray
from mmtpp.storage.hub import is_hub, pin_revision
from mmtpp.storage.manifest import Manifest, load_manifest
from mmtpp.storage.paths import (
    check_bucket,
    exists,
    filesystem_of,
    folder_bytes,
    join,
    write_bytes,
)
from mmtpp.track.mlflow_tracker import MlflowTracker, RunIdentity
from mmtpp.track.provenance import versions
from mmtpp.track.run_labels import job_tags, tracked_store
from mmtpp.train.claim import RESULT_FILE, claim, finished_result, run_plan
from mmtpp.train.description import describe_training
from mmtpp.train.entry import train_loop_per_worker
from mmtpp.train.task import PROGRESS_FILE, Task, best_uri

logger = logging.getLogger(__name__)

TRACKER_WAIT_S = 20.0


def pretrain(
    config: RunConfig, callbacks: list | None = None, start_uri: str = ""
) -> dict[str, object]:
    """Train on the compressed sequences of a store (stage 1).

    Args:
        config: the whole configuration.
        callbacks: Ray Train callbacks, a sweep's, who hear of every validation.
        start_uri: folder of a checkpoint of another run on the same samples; a fresh run goes on
            from there, with this run's optimiser settings.

    Returns:
        ``run_id``, ``model_uri`` or with LoRA ``adapter_uri``, ``steps``, ``metrics`` and where
        things are. A finished run returns its result again, and continues where
        ``training.num_steps`` was raised.

    Raises:
        StoppedError: by SIGTERM, after a checkpoint.
        MmtppError: the store, the model or the settings do not fit; or what a worker raised.
    """
    return _train(config, "pretrain", AllTokens(), callbacks or [], start_uri)


def finetune(
    config: RunConfig, callbacks: list | None = None, start_uri: str = ""
) -> dict[str, object]:
    """Train to answer questions about every event of a store's sequences (stage 2).

    All events of a window are asked about in one forward pass (``core.branches``). It goes on from
    ``model.adapter`` or ``model.path``, which stage 1 made; the rest is as ``pretrain`` says.

    Source: MM-TPP, stage 2, with one target drawn per sequence there.
    """
    return _train(config, "finetune", training_questions(config.tasks), callbacks or [], start_uri)


def _train(
    config: RunConfig, job: str, supervision: Supervision, callbacks: list, start_uri: str
) -> dict[str, object]:
    training = config.training
    if training.samples_per_step < training.num_workers:
        raise ConfigError(
            f"training.samples_per_step = {training.samples_per_step} is too few for "
            f"training.num_workers = {training.num_workers}: every worker needs one"
        )
    if training.min_workers > training.num_workers:
        raise ConfigError(
            f"training.min_workers = {training.min_workers} is more than "
            f"training.num_workers = {training.num_workers}"
        )
    if training.samples_per_step % training.num_workers:
        logger.warning(
            "training.samples_per_step = %d does not divide by training.num_workers = %d: some "
            "workers have a sample less in every step, and wait",
            training.samples_per_step,
            training.num_workers,
        )
    if config.model.preset != "tiny" and not config.model.path:
        raise ConfigError(
            f"model.path: preset {config.model.preset} needs the folder of its weights"
        )
    if config.model.adapter and not (config.model.path and config.lora.rank):
        raise ConfigError(
            "model.adapter: training goes on from an adapter only with model.path, its base, and "
            f"its lora.rank, which is {config.lora.rank} here"
        )
    config = with_values(config, {"model.path": pin_revision(config.model.path)})
    check_bucket(config.run.storage_uri)
    if start_uri and not exists(join(start_uri, PROGRESS_FILE)):
        raise StorageError(
            "the checkpoint to start from is not there",
            where=start_uri,
            cause="its run has deleted it since, to keep its newest ones only",
            setting=f"training.keep_checkpoints = {training.keep_checkpoints}",
        )
    manifest = load_manifest(config.store.uri)
    vocabulary = store_vocabulary(config.store.uri, manifest)
    for uri in filter(None, (config.model.path, config.model.adapter)):
        own = load_model_vocabulary(uri)
        check_same_vocabulary(own.hash, vocabulary.hash, where=uri)
        check_template(config, uri, to_train=True)
    if config.model.adapter:
        check_adapter(config.model.adapter, rank=config.lora.rank, alpha=config.lora.alpha)
    start_ray()
    hardware = choose_hardware(config)
    needed = workers(config, hardware, training.min_workers or training.num_workers)
    for need in (data_tasks(config), needed):
        wait_for(need, patience_s=config.run.wait_for_machines_s)
    if hardware.precision == "bfloat16" and config.zero.stage == 0:
        raise ConfigError(
            "zero.stage = 0 trains in float32 only",
            cause="DeepSpeed keeps float32 weights beside bfloat16 ones from stage 1 on, which "
            "needs no more memory",
            setting=f"zero.stage = 0, model.precision = {config.model.precision}",
        )
    name = run_name(config, job, store=manifest.fingerprint)
    run_uri = join(config.run.storage_uri, name)
    claim(config, job, run_uri)
    train = assemble_settings(config, manifest, split="train", supervision=supervision)
    plan = run_plan(train, vocabulary, join(run_uri, "plan.parquet"))
    result = finished_result(run_uri)
    if result is not None and result["steps"] == training.num_steps:
        logger.info("this run is finished; its result is %s", join(run_uri, RESULT_FILE))
        return result
    logger.info("training: %s", plan.describe(config.window.max_tokens))
    if training.max_flops:
        from mmtpp.train.compute import steps_within  # imports the model's classes

        steps = steps_within(config, train, plan, vocabulary)
        logger.info("training.max_flops = %.3g: %d steps", training.max_flops, steps)
        config = with_values(config, {"training.num_steps": steps})
    validation = plan_validation(config, manifest, vocabulary, run_uri, supervision=supervision)

    spans = (
        interval_range(train)
        if not isinstance(supervision, AllTokens) or training.time_smoothing
        else None
    )
    fingerprint = run_fingerprint(config, job=job, steps=False)
    run_key = f"{name}-{fingerprint[:16]}-{manifest.fingerprint[:16]}"
    type_codes = [code for code, count in enumerate(manifest.type_counts) if count]
    task = Task(
        config=config.model_dump(mode="json"),
        run=RunIdentity(name, run_uri, run_key),
        train=train,
        validation=validation,
        train_plan_uri=join(run_uri, "plan.parquet"),
        validation_plan_uri=join(run_uri, "validation_plan.parquet"),
        tokenizer_json=vocabulary.tokenizer_json,
        type_codes=type_codes,
        output_uri=join(run_uri, output_kind(config)),
        precision=hardware.precision,
        answers=None
        if isinstance(supervision, AllTokens) or spans is None
        else Answers(
            tasks=config.tasks.asked,
            intervals=spans,
            type_codes=tuple(type_codes),
            type_names=tuple(manifest.type_names),
            seconds_per_unit=manifest.seconds_per_unit,
            history=config.tasks.history > 0,
        ),
        tick=spans.tick if spans else 0.0,
        start_uri=start_uri,
        reports_validation=bool(callbacks),
    )
    return _fit(config, job, task, plan, manifest, hardware, callbacks)


def _fit(
    config: RunConfig,
    job: str,
    task: Task,
    plan: Plan,
    manifest: Manifest,
    hardware: Hardware,
    callbacks: list,
) -> dict[str, object]:
    tracker = MlflowTracker.from_run(config.tracking, task.run)
    tracker.log_params(flat_settings(config))
    tracker.set_tags(
        {
            **job_tags(job),
            "mmtpp.store_fingerprint": manifest.fingerprint,
            "mmtpp.plan_fingerprint": plan.fingerprint,
            "mmtpp.output_uri": task.output_uri,
            **versions(),
        }
    )
    tracker.log_text("config.json", config.model_dump_json(indent=2))
    tracker.set_description(describe_training(config, job, task))
    tracker.log_dataset(tracked_store(config.store.uri, manifest, context="training"))
    tracker.log_metrics(0, plan.figures())
    run_id = tracker.wait_for_run(TRACKER_WAIT_S)
    task = replace(task, run=replace(task.run, mlflow_run_id=run_id))
    filesystem, storage_path = filesystem_of(config.run.storage_uri)
    if isinstance(filesystem, pafs.LocalFileSystem):
        Path(storage_path).mkdir(parents=True, exist_ok=True)
    training = config.training
    environment = {"TOKENIZERS_PARALLELISM": "false"}
    if not is_hub(config.model.path):
        environment["HF_HUB_OFFLINE"] = "1"
    if not hardware.on_gpu:
        environment["DS_ACCELERATOR"] = "cpu"
    timeouts = {
        # of a worker that does not answer at all; by itself ten minutes
        "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": training.hang_timeout_s,
        # of machines that come in place of lost ones; by itself one minute, again and again, after
        # which a run that may go on with fewer workers does
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": 60.0
        if training.min_workers
        else max(config.run.wait_for_machines_s, 60.0),
    }
    trainer = partial(
        TorchTrainer,
        train_loop_per_worker,
        scaling_config=ScalingConfig(
            num_workers=(training.min_workers, training.num_workers)
            if training.min_workers
            else training.num_workers,
            use_gpu=hardware.on_gpu,
            resources_per_worker=worker_resources(config, hardware),
            label_selector=training.machine_labels or None,
        ),
        torch_config=TorchConfig(
            backend="nccl" if hardware.on_gpu else "gloo", timeout_s=int(training.hang_timeout_s)
        ),
        run_config=ray.train.RunConfig(
            name=task.run.run_name,
            storage_path=storage_path,
            storage_filesystem=filesystem,
            failure_config=FailureConfig(
                max_failures=training.max_failures, controller_failure_limit=training.max_failures
            ),
            checkpoint_config=CheckpointConfig(num_to_keep=training.keep_checkpoints),
            worker_runtime_env={"env_vars": environment},
            callbacks=callbacks,
        ),
    )
    try:
        with _timeouts(timeouts), stops_on_sigterm() as stop_request:
            arguments = {"task": task, "stop_request": stop_request}
            result = trainer(train_loop_config=arguments).fit()
    except TrainingFailedError as error:
        tracker.log_text("error.txt", str(error))
        tracker.close("FAILED")
        raise _cause(error, config, task.run.run_uri) from error
    except BaseException:  # interrupted: the run must not look alive
        tracker.close("KILLED")
        raise
    metrics = {
        key: value for key, value in (result.metrics or {}).items() if isinstance(value, float)
    }
    steps, best_step = int(metrics.pop("step")), int(metrics.pop("best_step"))
    if steps < training.num_steps:
        tracker.close("KILLED")
        raise StoppedError(
            f"stopped after step {steps} of {training.num_steps}, as asked; a checkpoint is saved",
            where=task.run.run_uri,
            cause="SIGTERM, as `ray job stop` sends it; the same command goes on from there",
        )
    tracker.log_metrics(0, {"model/trained_parameters": metrics["model/trained_parameters"]})
    changing = {
        key: metrics[key] for key in metrics if not key.startswith(("data/", "model/", "system/"))
    }
    tracker.log_metrics(steps, {f"final/{key}": value for key, value in changing.items()})
    if folder_bytes(task.output_uri) <= config.tracking.max_artifact_mib * 2**20:
        tracker.log_folder(task.output_uri, task.output_uri.rpartition("/")[2])
    else:
        tracker.log_text("output_uri.txt", task.output_uri)
    if task.answers is not None and {"time", "type"} & set(task.answers.tasks):
        tracker.log_forecaster(
            path=task.output_uri,
            base=config.model.path if config.lora.rank else "",
            known_type=task.answers.name_of(task.answers.type_codes[0]),
            # the trials of a sweep are many, and most of them bad
            register_as="" if config.tracking.parent_run_id else config.tracking.register_as,
        )
    tracker.close("FINISHED")
    made = output_kind(config)
    report: dict[str, object] = {
        "run_id": tracker.run_id,
        "run_name": task.run.run_name,
        f"{made}_uri": task.output_uri,
        **({f"best_{made}_uri": best_uri(task, best_step)} if best_step else {}),
        "steps": steps,
        "metrics": metrics,
        "tracking_uri": config.tracking.uri,
    }
    write_bytes(join(task.run.run_uri, RESULT_FILE), json.dumps(report, indent=2).encode())
    return report


@contextmanager
def _timeouts(seconds: Mapping[str, float]) -> Iterator[None]:
    """Ray Train's timeouts, which it reads from the environment; what the user has set stays."""
    own = {name: f"{value:g}" for name, value in seconds.items() if name not in os.environ}
    os.environ.update(own)
    try:
        yield
    finally:
        for name in own:
            del os.environ[name]


def output_kind(config: RunConfig) -> str:
    """What training makes: an ``adapter`` or a whole ``model``."""
    return "adapter" if config.lora.rank else "model"


def plan_validation(
    config: RunConfig,
    manifest: Manifest,
    vocabulary: Vocabulary,
    run_uri: str,
    *,
    supervision: Supervision,
) -> AssembleSettings | None:
    """Plan the validation: whole sequences, chosen alike whatever Delta cuts them into."""
    wanted = config.training.validation_sequences
    if not wanted:
        return None
    if not manifest.sequences_by_split["validation"]:
        logger.warning(
            "the store has no validation events, so none are scored (made with split.by = %s; "
            "split.validation_fraction = %g)",
            manifest.split_by,
            config.split.validation_fraction,
        )
        return None
    settings = assemble_settings(config, manifest, split="validation", supervision=supervision)
    # training.validation_sequences chooses, not the number of sequences that evaluate scores
    settings = replace(settings, max_sequences=0)
    plan = make_plan(settings, vocabulary.token_ids())
    places = plan.windows.select(["file", "group", "row"]).to_pylist()
    names = [(place["file"], place["group"], place["row"]) for place in places]
    sequences = sorted(set(names))
    order = np.random.default_rng(seed_from("validation") % 2**63).permutation(len(sequences))
    chosen = {sequences[index] for index in order[:wanted].tolist()}
    kept = plan.windows.filter(pa.array([name in chosen for name in names]))
    replace(
        plan, windows=kept.combine_chunks(), samples=[[index] for index in range(len(kept))]
    ).save(join(run_uri, "validation_plan.parquet"))
    return settings


def _cause(error: TrainingFailedError, config: RunConfig, run_uri: str) -> Exception:
    """The project's own error behind a failed run, if there is one."""
    if isinstance(error, ControllerError):
        return ClusterError(
            f"the workers could not be started: {error.controller_failure}",
            where=run_uri,
            cause="machines were lost and others did not come in time; the same command goes on "
            "from the last checkpoint",
            setting=f"run.wait_for_machines_s = {config.run.wait_for_machines_s:g}, "
            f"training.max_failures = {config.training.max_failures}",
        )
    if isinstance(error, WorkerGroupError):
        for rank, failure in sorted(error.worker_failures.items()):
            inner = failure.cause if isinstance(failure, RayTaskError) else failure
            if isinstance(inner, MmtppError):
                return inner
            logger.error("rank %d: %s", rank, failure)
    return error
