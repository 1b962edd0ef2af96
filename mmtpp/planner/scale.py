"""A training on many GPUs: traffic of a step, checkpoints, and what failures cost.

Sources: the volumes are those of DeepSpeed's collectives, measured in
``tests/parity/test_planner_traffic.py``; a ring sends a message of B bytes as B (N - 1) / N, twice
for an all-reduce (Patarasuk and Yuan, 2009). The best time between checkpoints and the lost time
are those of Daly, A higher order estimate of the optimum checkpoint interval for restart dumps,
Future Generation Computer Systems 22 (2006), equations 37 and 20.
"""

import math
from dataclasses import dataclass

from mmtpp.core.training.sample_order import num_micro_batches
from mmtpp.planner.memory import (
    LIVE_PARAMETERS,
    MASTER_BYTES,
    WEIGHT_BYTES,
    Counts,
    Option,
    Workload,
    estimate_speed,
)
from mmtpp.train.optimizer.state_codec import bytes_per_parameter


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A cluster of GPUs.

    Attributes:
        num_gpus: Number of GPUs, N.
        tflops: Peak of one GPU in dense bfloat16.
        mfu: Fraction of the peak that useful work reaches (model FLOPs utilisation).
        interconnect_gbs: Rate at which one GPU sends to others, in GB/s.
        checkpoint_gbs: Rate at which one GPU's part of a checkpoint is written, in GB/s.
        mtbf_hours: Mean time between failures of one GPU with all that belongs to it, in hours.
        restart_s: Seconds from a failure to the next step.
    """

    num_gpus: int
    tflops: float
    mfu: float
    interconnect_gbs: float
    checkpoint_gbs: float
    mtbf_hours: float
    restart_s: float

    @property
    def mtbf_s(self) -> float:
        """Mean time between failures of the cluster, in seconds: failures are independent."""
        return self.mtbf_hours * 3600 / self.num_gpus


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleEstimate:
    """A training on a cluster.

    Attributes:
        compute_s: Seconds of a step without waiting for other GPUs.
        sent_bytes: Bytes that one GPU sends in a step.
        send_s: Seconds in which it sends them.
        rows_per_s: Packed rows that the feed must deliver, at most.
        checkpoint_bytes: Bytes of a checkpoint.
        checkpoint_s: Seconds in which all GPUs write it.
        mtbf_s: Mean time between failures of the cluster.
        best_interval_s: Best seconds of training between two checkpoints.
        lost_at_best: Fraction of the time that checkpoints and failures cost at this interval.
        lost_at_settings: The same at ``training.checkpoint_every``.
    """

    compute_s: float
    sent_bytes: float
    send_s: float
    rows_per_s: float
    checkpoint_bytes: float
    checkpoint_s: float
    mtbf_s: float
    best_interval_s: float
    lost_at_best: float
    lost_at_settings: float


def estimate_scale(
    counts: Counts, workload: Workload, option: Option, cluster: Cluster, *, checkpoint_every: int
) -> ScaleEstimate:
    """Estimate a training on a cluster.

    Args:
        counts: Counted sizes of the workload.
        workload: The training, with at least one packed row for each GPU in a step.
        option: The way to train.
        cluster: The cluster.
        checkpoint_every: Number of steps between two checkpoints.
    """
    speed = estimate_speed(
        counts,
        workload,
        option,
        gpus=cluster.num_gpus,
        tflops=cluster.tflops,
        mfu=cluster.mfu,
    )
    compute_s = workload.samples_per_step * workload.max_tokens / speed.tokens_per_s
    sent = sent_bytes(counts, workload, option, num_gpus=cluster.num_gpus)
    written = checkpoint_bytes(counts, workload)
    write_s = written / cluster.num_gpus / (cluster.checkpoint_gbs * 1e9)
    best = best_interval(write_s, cluster.mtbf_s)
    send_s = sent / (cluster.interconnect_gbs * 1e9)
    interval = checkpoint_every * max(compute_s, send_s)

    def lost(seconds: float) -> float:
        return lost_fraction(
            seconds, write_s=write_s, mtbf_s=cluster.mtbf_s, restart_s=cluster.restart_s
        )

    return ScaleEstimate(
        compute_s=compute_s,
        sent_bytes=sent,
        send_s=send_s,
        rows_per_s=workload.samples_per_step / compute_s,
        checkpoint_bytes=written,
        checkpoint_s=write_s,
        mtbf_s=cluster.mtbf_s,
        best_interval_s=best,
        lost_at_best=lost(best),
        lost_at_settings=lost(interval),
    )


def sent_bytes(counts: Counts, workload: Workload, option: Option, *, num_gpus: int) -> float:
    """Bytes that one GPU sends in a step, in rings of all GPUs.

    ZeRO-1 reduces the gradients once a step, ZeRO-2 and 3 after every micro-batch; 1 and 2 reduce
    by all-reduce. ZeRO-1 and 2 gather the updated weights; ZeRO-3 gathers all weights, in the
    forward and the backward pass of every micro-batch if they are more than stay gathered.

    Args:
        counts: Counted sizes of the workload.
        workload: The training.
        option: The way to train.
        num_gpus: Number of GPUs, N.
    """
    micro_batches = num_micro_batches(workload.samples_per_step, num_ranks=num_gpus)
    trained = counts.trained * WEIGHT_BYTES
    if option.stage == 3:
        stays_gathered = counts.parameters <= LIVE_PARAMETERS
        gathers = 1 if stays_gathered else 2 * micro_batches
        volume = micro_batches * trained + gathers * counts.parameters * WEIGHT_BYTES
    else:
        reductions = micro_batches if option.stage == 2 else 1
        volume = 2 * reductions * trained + trained
    return volume * (num_gpus - 1) / num_gpus


def checkpoint_bytes(counts: Counts, workload: Workload) -> float:
    """Bytes of a checkpoint: float32 weights and states of the trained parameters."""
    state_bytes = bytes_per_parameter(workload.optimizer_precision.stored_states)
    return counts.trained * MASTER_BYTES + counts.states * state_bytes


def best_interval(write_s: float, mtbf_s: float) -> float:
    """Seconds of training between two checkpoints that lose the least time.

    Args:
        write_s: Seconds in which a checkpoint is written.
        mtbf_s: Mean time between failures, in seconds.
    """
    if write_s >= 2 * mtbf_s:
        return mtbf_s
    ratio = write_s / (2 * mtbf_s)
    return math.sqrt(2 * write_s * mtbf_s) * (1 + math.sqrt(ratio) / 3 + ratio / 9) - write_s


def lost_fraction(interval_s: float, *, write_s: float, mtbf_s: float, restart_s: float) -> float:
    """Fraction of the time in which no lasting progress is made, 0 to 1.

    Args:
        interval_s: Seconds of training between two checkpoints.
        write_s: Seconds in which a checkpoint is written.
        mtbf_s: Mean time between failures, in seconds; failures are exponential.
        restart_s: Seconds from a failure to the next step, in which another failure may occur.
    """
    exponent = (interval_s + write_s) / mtbf_s
    if exponent + restart_s / mtbf_s > 500:  # no interval ever ends without a failure
        return 1.0
    per_interval = mtbf_s * math.exp(restart_s / mtbf_s) * math.expm1(exponent)
    return 1 - interval_s / per_interval
