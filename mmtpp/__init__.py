"""Multimodal temporal point processes on Ray: events with times, types, texts and images."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmtpp.api.forecaster import Forecaster
    from mmtpp.api.sequences import Sequences, compress, load_sequences
    from mmtpp.core.events import EventSequence
    from mmtpp.data.store.images import load_image
    from mmtpp.predict.forecast_result import Forecast, FutureEvent

__version__ = "0.1.0"
__all__ = [
    "EventSequence",
    "Forecast",
    "Forecaster",
    "FutureEvent",
    "Sequences",
    "compress",
    "load_image",
    "load_sequences",
]
_MODULES = {
    "Forecaster": "mmtpp.api.forecaster",
    "Sequences": "mmtpp.api.sequences",
    "compress": "mmtpp.api.sequences",
    "load_sequences": "mmtpp.api.sequences",
    "EventSequence": "mmtpp.core.events",
    "load_image": "mmtpp.data.store.images",
    "Forecast": "mmtpp.predict.forecast_result",
    "FutureEvent": "mmtpp.predict.forecast_result",
}


def __getattr__(name: str) -> object:
    """Import a public name on first use, so that ``import mmtpp`` loads no other package."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
