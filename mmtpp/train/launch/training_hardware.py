"""The hardware of a training: its device and precision, on machines that have joined."""

from mmtpp.config.schema import TrainingSection, ZeroSection
from mmtpp.core.errors import ConfigError
from mmtpp.runtime.hardware import Hardware, choose_hardware, worker_demand
from mmtpp.runtime.machines import data_task_demand, wait_for_machines
from mmtpp.runtime.session import start_ray


def start_ray_for_training(
    training: TrainingSection,
    zero: ZeroSection,
    *,
    precision: str,
    data_labels: dict[str, str],
    patience_s: float,
) -> Hardware:
    """Start Ray, choose device and precision, and wait for the machines of data and workers.

    Args:
        training: Number and resources of the workers.
        zero: Sharding.
        precision: Precision of the model, ``model.precision``.
        data_labels: Ray labels of the machines that read the store, ``store.machine_labels``.
        patience_s: Maximum time to wait, in seconds.

    Raises:
        ClusterError: The machines did not join in time.
        ConfigError: The precision needs another ZeRO stage.
    """
    start_ray()
    hardware = choose_hardware(training, precision)
    if hardware.precision == "bfloat16" and zero.stage == 0:
        raise ConfigError(
            "zero.stage = 0 trains in float32 only",
            cause="DeepSpeed keeps float32 weights next to bfloat16 ones from stage 1 on; stage 1 "
            "needs no more memory",
            setting=f"zero.stage = 0, model.precision = {precision}",
        )
    wait_for_machines(data_task_demand(data_labels), patience_s=patience_s)
    wait_for_workers(training, hardware, patience_s=patience_s)
    return hardware


def wait_for_workers(training: TrainingSection, hardware: Hardware, *, patience_s: float) -> None:
    """Wait for the machines of as many workers as a training can start with.

    Args:
        training: Number and resources of the workers.
        hardware: Device of the workers.
        patience_s: Maximum time to wait, in seconds.

    Raises:
        ClusterError: The machines did not join in time.
    """
    num_workers = training.min_workers or training.num_workers
    wait_for_machines(worker_demand(training, hardware, num_workers), patience_s=patience_s)
