"""The training jobs: configuration in, trained model or adapter out. They run on the driver."""

import logging
from dataclasses import replace

from mmtpp.config.load import with_values
from mmtpp.config.schema import RunConfig
from mmtpp.core.supervision import AllTokens
from mmtpp.data.settings import training_questions
from mmtpp.storage.hub import pin_revision
from mmtpp.storage.paths import join
from mmtpp.train.launch.check_settings import check_settings, load_inputs, wait_for_hardware
from mmtpp.train.launch.fit_run import fit_run
from mmtpp.train.launch.plan_run import build_task, plan_training
from mmtpp.train.launch.run_folder import RESULT_FILE, claim_run, load_result
from mmtpp.train.task import TrainingJob

logger = logging.getLogger(__name__)


def pretrain(
    config: RunConfig, callbacks: list | None = None, start_uri: str = ""
) -> dict[str, object]:
    """Train on the compressed sequences of a store (stage 1).

    Args:
        config: The whole configuration.
        callbacks: Ray Train callbacks that receive every validation, used by sweeps.
        start_uri: Folder of a checkpoint of another run on the same samples. A fresh run continues
            from there with this run's optimiser settings.

    Returns:
        ``run_id``, ``model_uri`` or with LoRA ``adapter_uri``, ``steps``, ``metrics`` and the URIs
        of further results. A finished run returns its result again; it continues when
        ``training.num_steps`` was raised.

    Raises:
        StoppedError: The job received SIGTERM; it saved a checkpoint first.
        MmtppError: The store, the model or the settings do not fit, or a worker raised this error.
    """
    return _train(TrainingJob("pretrain", config, AllTokens(), callbacks or [], start_uri))


def finetune(
    config: RunConfig, callbacks: list | None = None, start_uri: str = ""
) -> dict[str, object]:
    """Train to answer questions about every event of a store's sequences (stage 2).

    One forward pass asks about all events of a window (``core.branches``). Training starts from
    ``model.adapter`` or ``model.path``, the output of stage 1. Arguments, result and errors are
    those of ``pretrain``.

    Source: MM-TPP, stage 2, which draws one target per sequence instead.
    """
    questions = training_questions(config.tasks)
    return _train(TrainingJob("finetune", config, questions, callbacks or [], start_uri))


def _train(job: TrainingJob) -> dict[str, object]:
    check_settings(job.config)
    model_path = pin_revision(job.config.model.path)
    job = replace(job, config=with_values(job.config, {"model.path": model_path}))
    inputs = load_inputs(job.config, job.start_uri)
    hardware = wait_for_hardware(job.config)
    run = claim_run(job.config, job.name, store_fingerprint=inputs.manifest.fingerprint)
    samples, plan = plan_training(job.config, inputs, run.run_uri, job.supervision)
    result = load_result(run.run_uri)
    if result is not None and result["steps"] == job.config.training.num_steps:
        logger.info("this run is finished; its result is %s", join(run.run_uri, RESULT_FILE))
        return result
    logger.info("training: %s", plan.describe(job.config.window.max_tokens))
    if job.config.training.max_flops:
        from mmtpp.train.launch.flops_budget import num_steps_within  # imports the model's classes

        num_steps = num_steps_within(job.config, samples, plan, inputs.vocabulary)
        logger.info("training.max_flops = %.3g: %d steps", job.config.training.max_flops, num_steps)
        job = replace(job, config=with_values(job.config, {"training.num_steps": num_steps}))
    task = build_task(job, run, inputs, samples, precision=hardware.precision)
    return fit_run(job, task, plan, inputs.manifest, hardware)
