"""What the gateway asks of a shard."""

from dataclasses import dataclass

from mmtpp.serve.live_model import ForecastRequest
from mmtpp.serve.live_sequences import AppendRequest


@dataclass(frozen=True, slots=True)
class ShardAppend:
    """New events for a shard.

    Attributes:
        request: The events.
        with_forecast: Whether the sequences of the accepted events are forecast.
    """

    request: AppendRequest
    with_forecast: bool = False


@dataclass(frozen=True, slots=True)
class ShardForecast:
    """A forecast that a shard computes and writes as JSON.

    Attributes:
        request: What is asked of the model.
        quantiles: Probabilities of the interval's quantiles, above 0 and below 1; the model's own
            if empty.
        waits: Times after the last event, in the model's unit, at which survival and hazard are
            given.
    """

    request: ForecastRequest
    quantiles: tuple[float, ...] = ()
    waits: tuple[float, ...] = ()
