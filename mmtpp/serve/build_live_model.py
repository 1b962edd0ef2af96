"""The live model of a forecaster."""

from mmtpp.api.forecaster import Forecaster
from mmtpp.expert.expert_folder import Expert
from mmtpp.serve.drift_watch import DriftWatch
from mmtpp.serve.live_expert import LiveExpert
from mmtpp.serve.live_language_model import MAX_CACHE_MIB, LiveLanguageModel, LiveSoftModel
from mmtpp.serve.live_model import LiveModel

MAX_SEQUENCES = 100_000
"""Default of the largest number of sequences whose states an expert keeps in memory."""

WATCHED_PER_S = 100.0
"""Default of the largest number of events in a second that are compared with their forecasts."""


def build_live_model(
    forecaster: Forecaster,
    *,
    max_sequences: int,
    watched_per_s: float = WATCHED_PER_S,
    max_cache_bytes: int = MAX_CACHE_MIB * 2**20,
) -> LiveModel:
    """The live model of a forecaster.

    Args:
        forecaster: A loaded model.
        max_sequences: Largest number of sequences whose states an expert keeps in memory.
        watched_per_s: Largest number of new events in a second that an expert compares with the
            forecasts before them.
        max_cache_bytes: Largest memory of the keys and values that a language model keeps.
    """
    if isinstance(forecaster.model, Expert):
        watch = DriftWatch(forecaster.model, events_per_s=watched_per_s)
        return LiveExpert(forecaster, forecaster.model, watch, max_sequences=max_sequences)
    if forecaster.soft is not None:
        return LiveSoftModel(forecaster)
    return LiveLanguageModel(forecaster, max_cache_bytes=max_cache_bytes)
