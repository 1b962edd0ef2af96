"""Training of the expert's networks, one after the other, on any number of ranks.

Each network has its own random start and order of events, or continues a trained one. The weights
that are validated are a moving average over recent steps. The best weights on validation are kept.
If training starts from a trained network, its own weights compete too.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from mmtpp.core.errors import NonFiniteLossError
from mmtpp.core.past.event_memory import MemorySettings
from mmtpp.core.seeds import seed_from
from mmtpp.core.training.lr_schedule import lr_factor
from mmtpp.expert.batch_order import BatchOrder, RankBatch
from mmtpp.expert.dropout_mask import draw_mask
from mmtpp.expert.fit_state import (
    FitProgress,
    NetworkState,
    Tensors,
    read_finished,
    tensors_of_finished,
)
from mmtpp.expert.hawkes_targets import HawkesTargets
from mmtpp.expert.interval_density import IntervalScale
from mmtpp.expert.marginal_losses import marginal_losses
from mmtpp.expert.network import DropoutMask, ExpertNetwork, NetworkSize
from mmtpp.expert.network_losses import ALONE, NetworkLosses, Ranks, event_losses, mean_losses
from mmtpp.expert.network_start import NetworkStart, RandomStart
from mmtpp.expert.next_events import EventBlocks, NextEvents
from mmtpp.expert.training_statistics import TrainingStatistics

_WARMUP_FRACTION = 0.03  # of the steps
_FINAL_FRACTION = 0.02  # of the learning rate
_PATIENCE_FRACTION = 1 / 3  # share of the validations without improvement that ends a network
_MAX_GRAD_NORM = 1.0
_NEXT_IMAGE_WEIGHT = 0.3  # of the nats of where the next image differs
_SPARSE_CHANGE = 1 / 16  # share of patches that differ, below which they have this weight
EVENTS_PER_STEP, EVENTS_WITH_IMAGES_PER_STEP = 1024, 128

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertFitSettings:
    """Settings of the training; the section ``expert`` of the configuration has their defaults.

    Attributes:
        num_networks: Number of networks.
        width: Width of a network.
        num_components: Number of log-normal components of the interval's distribution.
        dropout: Probability of dropout, 0 to below 1.
        memory_dropout: Probability of dropout of the memory's columns, 0 to below 1.
        hawkes_fraction: Probability that a target is drawn from a Hawkes process, 0 to below 1.
        epochs: Number of epochs of each network.
        max_steps: Largest number of steps of a network.
        events_per_step: Number of events in a step, about; fewer with few training events. None:
            ``EVENTS_PER_STEP``; where images are read, as few as ``EVENTS_WITH_IMAGES_PER_STEP`` if
            ``max_steps`` steps of them make all epochs.
        learning_rate: Largest learning rate of AdamW.
        weight_decay: Decoupled weight decay.
        num_validations: Number of validations of each network, evenly spaced.
        next_image_weight: Weight of the nats of where the next image differs, at least 0. None: 0.3
            if few patches differ, and 0 otherwise; 0.3 for the networks of a trained expert.
        seed: Seed of start, order and dropout.
    """

    num_networks: int
    width: int
    num_components: int
    dropout: float
    memory_dropout: float
    hawkes_fraction: float
    epochs: int
    max_steps: int
    events_per_step: int | None
    learning_rate: float
    weight_decay: float
    num_validations: int
    next_image_weight: float | None
    seed: int


class ExpertFit:
    """Trains the networks of an expert.

    Args:
        training: Training events.
        validation: Validation events; None keeps the last weights of each network.
        num_types: Number of types.
        settings: Settings of the training.
        num_words: Number of rows of the table of words; 0 if the events have no words.
        reads_images: Whether the events have images.
        ranks: This process among the ranks.
        start: Where the networks start; None for random weights.

    Attributes:
        progress: How far the training is.
    """

    def __init__(
        self,
        training: EventBlocks,
        validation: EventBlocks | None,
        *,
        num_types: int,
        settings: ExpertFitSettings,
        num_words: int = 0,
        reads_images: bool = False,
        ranks: Ranks = ALONE,
        start: NetworkStart | None = None,
    ) -> None:
        self.settings, self.progress = settings, FitProgress()
        self._training, self._validation, self._ranks = training, validation, ranks
        self._loaded_validation: NextEvents | None = None
        memory = training.memory
        self._scale = IntervalScale.from_memory(memory, tick=training.tick)
        weight = settings.next_image_weight
        if start is None:
            statistics = TrainingStatistics.from_events(training)
            if weight is None:
                weight = _next_image_weight(statistics)
            size = NetworkSize(
                width=settings.width,
                num_components=settings.num_components,
                num_types=num_types,
                num_columns=len(memory.column_names),
                num_words=num_words,
                reads_images=reads_images,
                predicts_change=reads_images and weight > 0,
            )
            start = RandomStart(size, self._scale, statistics)
        self._start = start
        self._next_image_weight = _NEXT_IMAGE_WEIGHT if weight is None else weight
        self._hawkes_targets = (
            HawkesTargets.fit(training, num_types=num_types, fraction=settings.hawkes_fraction)
            if settings.hawkes_fraction
            else None
        )
        self._finished: list[Tensors] = []
        self._begin_network()

    def _begin_network(self) -> None:
        """Build the next network, its optimiser and its batches, at the present step."""
        settings, index = self.settings, self.progress.network
        torch.manual_seed(seed_from("expert", settings.seed, index) % 2**63)
        self._state = NetworkState(
            self._start.build(
                index, dropout=settings.dropout, memory_dropout=settings.memory_dropout
            ),
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
        )
        self._wrapped_network = self._ranks.wrap(self._state.network)
        self._order = BatchOrder(
            self._training,
            events_per_step=self._events_per_step,
            seed=seed_from(settings.seed, index),
            drawn=self._hawkes_targets,
        )
        self._batches = self._order.batches(
            self.progress.step,
            self._ranks.rank,
            self._ranks.num_ranks,
            num_steps=self.num_steps,
        )
        # the weights of a trained start compete with those of every validation
        if self._start.is_trained and not self.progress.step:
            losses = self.validate()
            if losses is not None and math.isfinite(losses.nll):
                self.progress.best_nll = losses.nll

    @property
    def _events_per_step(self) -> int:
        """Number of events in a step, about."""
        settings = self.settings
        if settings.events_per_step is not None:
            return settings.events_per_step
        if not self._start.size.reads_images:
            return EVENTS_PER_STEP
        # small steps, but not so small that max_steps ends the training before its last epoch
        num_events = sum(map(self._training.num_targets, range(len(self._training.blocks))))
        least = math.ceil(num_events * settings.epochs / settings.max_steps)
        return min(max(least, EVENTS_WITH_IMAGES_PER_STEP), EVENTS_PER_STEP)

    @property
    def memory(self) -> MemorySettings:
        """Settings of the memory."""
        return self._training.memory

    @property
    def num_steps(self) -> int:
        """Largest number of steps of each network."""
        return min(self.settings.epochs * self._order.steps_per_epoch, self.settings.max_steps)

    @property
    def events_per_epoch(self) -> int:
        """Number of events of an epoch."""
        return self._order.events_per_epoch

    @property
    def total_steps(self) -> int:
        """Number of steps of all networks so far; the step of the run."""
        return self.progress.steps_before + self.progress.step

    @property
    def is_finished(self) -> bool:
        """Whether all networks are trained."""
        return len(self._finished) == self.settings.num_networks

    @property
    def validation_is_due(self) -> bool:
        """Whether the present network must be validated before its next step."""
        spacing = np.linspace(0, self.num_steps, self.settings.num_validations + 1)[1:].round()
        return self.progress.step in spacing

    def run(self) -> None:
        """Train all networks to their end in this process, without checkpoints.

        Raises:
            NonFiniteLossError: The training diverged.
        """
        while not self.is_finished:
            self.run_step()
            if self.validation_is_due:
                self.record_validation(self.validate())

    def run_step(self) -> NetworkLosses:
        """Update the present network once; return the losses of the batch over all ranks.

        Raises:
            NonFiniteLossError: The loss of the batch is not finite; raised on every rank before
                the step.
        """
        settings, progress = self.settings, self.progress
        batch = next(self._batches)
        events = batch.events
        factor = lr_factor(
            progress.step,
            num_steps=self.num_steps,
            warmup_fraction=_WARMUP_FRACTION,
            final_fraction=_FINAL_FRACTION,
        )
        optimizer = self._state.optimizer
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * factor
        optimizer.zero_grad()
        interval_nll, type_nll, change_nll = self._wrapped_network(
            events.inputs,
            events.next_intervals,
            events.next_types,
            self._dropout_mask(batch),
            events.changes,
        )
        # the ranks' gradients are averaged, so each loss is multiplied by their number
        loss = (interval_nll + type_nll + self._next_image_weight * change_nll).sum()
        loss = loss * (self._ranks.num_ranks / batch.size)
        losses = self._total_losses([interval_nll, type_nll, change_nll], batch.size)
        loss.backward()
        nn.utils.clip_grad_norm_(self._state.network.parameters(), _MAX_GRAD_NORM)
        optimizer.step()
        progress.step += 1
        self._state.update_average(progress.step)
        return losses

    def _dropout_mask(self, batch: RankBatch) -> DropoutMask | None:
        settings, progress = self.settings, self.progress
        return draw_mask(
            self._start.size,
            batch.size,
            batch.places if self._ranks.num_ranks > 1 else None,
            dropout=settings.dropout,
            memory_dropout=settings.memory_dropout,
            seed=seed_from("dropout", settings.seed, progress.network, progress.step),
        )

    def _total_losses(self, losses: Sequence[torch.Tensor], batch_size: int) -> NetworkLosses:
        """Mean losses of a batch over all ranks, of the interval and of the type; all are checked.

        Args:
            losses: (N,) nats of the interval, of the type, and of others.
            batch_size: Number of events of the batch on all ranks.
        """
        sums = torch.stack([nll.detach().sum() for nll in losses]).double()
        totals = self._ranks.total(sums) / batch_size
        if not torch.isfinite(totals).all():
            progress = self.progress
            raise NonFiniteLossError(
                "the loss is not finite",
                where=f"network {progress.network + 1}, step {progress.step + 1}",
                cause="training diverged",
                setting=f"{self._start.rate_setting} = {self.settings.learning_rate:g}",
            )
        return NetworkLosses(float(totals[0]), float(totals[1]), batch_size)

    def validate(self) -> NetworkLosses | None:
        """Losses of the averaged weights over the validation events; None without such events."""
        return self.validation_losses([self._state.averaged])

    def record_validation(self, losses: NetworkLosses | None) -> None:
        """Keep the averaged weights if they are the best, and end the network when it is time.

        After the end of a network, the next one begins.

        Args:
            losses: Result of ``validate``. Without validation events, the last weights are kept.

        Raises:
            NonFiniteLossError: The network ends, and none of its validation losses is finite.
        """
        progress = self.progress
        best = progress.best_nll
        is_finite = losses is None or math.isfinite(losses.nll)
        if not is_finite:
            logger.warning("the validation loss is not finite after step %d", progress.step)
        if losses is None or (is_finite and (best is None or losses.nll < best)):
            progress.validations_since_best = 0
            progress.best_nll = losses.nll if losses else None
            self._state.keep_averaged()
        else:
            progress.validations_since_best += 1
        if progress.step == self.num_steps or progress.validations_since_best >= self._patience:
            if losses is not None and progress.best_nll is None:
                raise NonFiniteLossError(
                    "no validation loss is finite",
                    where=f"network {progress.network + 1}, step {progress.step}",
                    cause="training diverged",
                    setting=f"{self._start.rate_setting} = {self.settings.learning_rate:g}",
                )
            self._end_network()

    @property
    def _patience(self) -> int:
        """Number of validations without improvement that ends a network."""
        return math.ceil(_PATIENCE_FRACTION * self.settings.num_validations)

    def _end_network(self) -> None:
        """Keep the best weights of the present network, and begin the next one."""
        progress = self.progress
        self._finished.append(self._state.best)
        progress.finished_nll.append(progress.best_nll)
        progress.steps_before += progress.step
        progress.network, progress.step = progress.network + 1, 0
        progress.validations_since_best = 0
        progress.best_nll = None
        if not self.is_finished:
            self._begin_network()

    def networks(self) -> list[ExpertNetwork]:
        """The finished networks; all of them after the training."""
        networks = []
        for weights in self._finished:
            network = ExpertNetwork(self._start.size, self._scale)
            network.load_state_dict(weights)
            networks.append(network.eval())
        return networks

    def validation_losses(self, networks: Sequence[ExpertNetwork]) -> NetworkLosses | None:
        """Score the mean of networks' distributions; None without validation events."""
        if self._validation is None:
            return None
        if len(self._validation.blocks) == 1 and self._loaded_validation is None:
            self._loaded_validation = self._validation.load(0)
        blocks = self._validation if self._loaded_validation is None else [self._loaded_validation]
        return mean_losses(networks, blocks, self._ranks)

    def surprise_limit(self, networks: Sequence[ExpertNetwork], share: float) -> float | None:
        """Nats of time and type that a share of the validation events exceeds.

        Args:
            networks: Networks; the losses are those of their mean distribution.
            share: The share, above 0 and below 1.

        Returns:
            A loss of a validation event; None without validation events, or if it is not finite.
        """
        if self._validation is None:
            return None
        losses = [sum(event_losses(networks, events)) for events in self._validation]
        limit = float(np.quantile(np.concatenate(losses), 1 - share, method="higher"))
        return limit if math.isfinite(limit) else None

    def marginal_losses(self) -> NetworkLosses | None:
        """Score the distribution of the training events; None without validation events."""
        if self._validation is None:
            return None
        return marginal_losses(
            self._training, self._validation, num_types=self._start.size.num_types
        )

    def tensors(self) -> Tensors:
        """The state of the training: all weights and the moments of the optimiser, by name."""
        state = tensors_of_finished(self._finished)
        if self.is_finished:
            return state
        state |= self._state.tensors()
        return {name: tensor.detach().clone().contiguous() for name, tensor in state.items()}

    def restore(self, progress: FitProgress, tensors: Tensors) -> None:
        """Continue from a state.

        Args:
            progress: How far the training was.
            tensors: Result of ``tensors``.
        """
        self.progress = progress
        self._finished = read_finished(tensors, progress.network)
        if self.is_finished:
            return
        self._begin_network()
        self._state.restore(tensors)


def _next_image_weight(statistics: TrainingStatistics) -> float:
    """Weight of the nats of where the next image differs: 0 where much of an image does."""
    patches = statistics.patches
    if patches is None or patches.change_fraction < _SPARSE_CHANGE:
        return _NEXT_IMAGE_WEIGHT
    return 0.0
