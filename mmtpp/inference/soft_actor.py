"""The base of all actors with a model of soft tokens."""

import numpy as np

from mmtpp.core.past.past_events import PastEvents
from mmtpp.data.store.store_reader import StoreReader
from mmtpp.data.store.stored_sequence import Address
from mmtpp.inference.assembled_row import AssembledRow
from mmtpp.inference.model_actor import ModelActor, ModelActorSettings
from mmtpp.soft.soft_folder import load_soft_distributions
from mmtpp.soft.soft_rollout import SoftRollout


class SoftActor(ModelActor):
    """An actor with a soft model.

    Args:
        settings: Settings of the actor.

    Attributes:
        distributions: Distributions after the events of a row.
        codes: (K,) codes of the types that the model knows.
    """

    def __init__(self, settings: ModelActorSettings) -> None:
        super().__init__(settings)
        self.distributions = load_soft_distributions(settings.location, self.loaded)
        self.codes = np.asarray(self.distributions.model.settings.type_codes, dtype=np.int16)
        self._reader = StoreReader(settings.sample_settings.store)

    def begin_rollout(self, sample: AssembledRow, num_futures: int) -> SoftRollout:
        """Begin futures after the last event of a sample of one window.

        Args:
            sample: The sample.
            num_futures: Number of futures.
        """
        batch = self.loaded.batcher(sample.row)
        return self.distributions.begin_rollout(batch, self._past(sample), num_futures)

    def _past(self, sample: AssembledRow) -> PastEvents:
        """All events of the sequence up to the last one of the sample."""
        [window] = sample.windows
        address = Address.from_window(window)
        stored = self._reader.events(address, 0, window["end"])
        lengths = np.diff(stored.events.text_offsets)
        return PastEvents.from_sequence(stored.times, stored.events.types, lengths)
