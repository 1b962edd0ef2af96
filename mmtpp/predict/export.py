"""The export job: merge an adapter into its base, as one standard Hugging Face folder."""

import logging
import shutil
import tempfile
from pathlib import Path
from typing import Any

import ray
import torch

from mmtpp.config.fingerprint import run_name
from mmtpp.config.schema import RunConfig
from mmtpp.model.backbones.registry import family_of_folder
from mmtpp.model.cpu_bfloat16 import adapt_to_processor
from mmtpp.model.folders.card import CardBackbone, write_merged_card
from mmtpp.model.folders.folder import local_folder
from mmtpp.model.folders.record import TEMPLATE_FILE
from mmtpp.model.merge import merge_adapter
from mmtpp.runtime.hardware import Hardware, worker_demand
from mmtpp.runtime.machines import wait_for_machines
from mmtpp.runtime.session import start_ray
from mmtpp.runtime.task_errors import own_errors
from mmtpp.soft.soft_folder import WEIGHTS_FILE
from mmtpp.soft.soft_settings import SETTINGS_FILE
from mmtpp.storage.paths import check_bucket, copy_folder, join

logger = logging.getLogger(__name__)


def export(config: RunConfig) -> dict[str, object]:
    """Merge ``model.adapter`` into ``model.path`` on a machine of the cluster.

    The job needs memory for one copy of the model in ``model.precision`` (``auto`` is float32:
    15 GB for the 3B model) and disk space for two copies.

    Returns:
        ``model_uri`` and ``max_difference_nats``, the largest difference between the merged model
        and the base with its adapter.

    Raises:
        ModelError: Base and adapter do not belong together, or the merged model differs too much.
    """
    check_bucket(config.run.storage_uri)
    start_ray()
    on_cpu = Hardware(on_gpu=False, precision=config.model.precision)
    wait_for_machines(
        worker_demand(config.training, on_cpu, 1), patience_s=config.run.wait_for_machines_s
    )
    output = join(config.run.storage_uri, run_name(config, "export", store=""), "model")
    task: Any = ray.remote(
        num_cpus=config.training.cpus_per_worker,
        label_selector=config.training.machine_labels,
    )(_merge)
    with own_errors():
        difference = ray.get(
            task.remote(config.model.path, config.model.adapter, output, config.model.precision)
        )
    logger.info("the merged model differs by at most %.2g nats per label", difference)
    return {"model_uri": output, "max_difference_nats": difference}


def _merge(base_uri: str, adapter_uri: str, output_uri: str, precision: str) -> float:
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    adapt_to_processor(torch.device("cpu"), dtype)
    with (
        local_folder(base_uri) as base,
        local_folder(adapter_uri) as adapter,
        tempfile.TemporaryDirectory() as output,
    ):
        assert base is not None
        assert adapter is not None
        difference = merge_adapter(base, adapter, Path(output), dtype=dtype)
        for name in (TEMPLATE_FILE, SETTINGS_FILE, WEIGHTS_FILE):
            if (adapter / name).exists():
                shutil.copy(adapter / name, output)
        family = family_of_folder(base)
        write_merged_card(
            Path(output),
            base=base_uri,
            adapter=adapter_uri,
            difference=difference,
            backbone=CardBackbone(family.model_type, family.class_name),
        )
        copy_folder(output, output_uri)
    return difference
