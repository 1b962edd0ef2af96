"""Events that an expert can learn, and a small training of it."""

import numpy as np
import pytest

from mmtpp.core.past.event_memory import MemorySettings
from mmtpp.core.past.past_events import PastEvents
from mmtpp.expert.expert_folder import Expert
from mmtpp.expert.fit import ExpertFit, ExpertFitSettings
from mmtpp.expert.network_losses import Ranks
from mmtpp.expert.next_events import EventBlocks, ScoredSequence

TICK = 0.1
SETTINGS = ExpertFitSettings(
    num_networks=2,
    width=16,
    num_components=8,
    dropout=0.3,
    memory_dropout=0.1,
    hawkes_fraction=0.0,
    epochs=8,
    max_steps=5000,
    events_per_step=64,
    learning_rate=3e-3,
    weight_decay=0.01,
    num_validations=12,
    next_image_weight=None,
    seed=0,
)


def alternating_sequences(number: int, seed: int, num_events: int = 60) -> list[ScoredSequence]:
    """Two types in turn: after type 0 a short interval, after type 1 a long one."""
    rng = np.random.default_rng(seed)
    sequences = []
    for index in range(number):
        types = np.arange(num_events) % 2
        intervals = rng.gamma(20.0, np.where(types == 0, 0.1, 1.0))
        times = np.concatenate([[0.0], np.cumsum(intervals)])[:num_events].round(1)
        past = PastEvents.from_sequence(times, types, np.zeros(num_events, dtype=np.int64))
        sequences.append(ScoredSequence(f"{seed}-{index}", past, np.arange(num_events) > 0))
    return sequences


class SmallFit:
    """Builds trainings of a small expert on the same events."""

    def __init__(self) -> None:
        training, validation = alternating_sequences(20, 0), alternating_sequences(5, 1)
        past = PastEvents.join(sequence.past for sequence in training)
        self.memory = MemorySettings.fit(past, tick=TICK, seconds_per_unit=1.0)
        self.training = EventBlocks.from_sequences(self.memory, training, tick=TICK)
        self.validation = EventBlocks.from_sequences(self.memory, validation, tick=TICK)
        self.settings = SETTINGS

    def build(self, ranks: Ranks | None = None) -> ExpertFit:
        """A training at its start."""
        return ExpertFit(
            self.training,
            self.validation,
            num_types=2,
            settings=self.settings,
            **({"ranks": ranks} if ranks else {}),
        )


def finish(fit: ExpertFit) -> ExpertFit:
    """Run a training to its end."""
    while not fit.is_finished:
        fit.run_step()
        if fit.validation_is_due:
            fit.record_validation(fit.validate())
    return fit


@pytest.fixture(scope="session")
def small() -> SmallFit:
    return SmallFit()


@pytest.fixture(scope="session")
def finished(small: SmallFit) -> ExpertFit:
    """A finished training; tests leave it unchanged."""
    return finish(small.build())


@pytest.fixture(scope="session")
def expert(small: SmallFit, finished: ExpertFit) -> Expert:
    return Expert(small.memory, TICK, tuple(finished.networks()))
