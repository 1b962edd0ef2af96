"""Forecasts as JSON: the columns that ``predict`` writes, and curves at requested waits."""

import math
from collections.abc import Sequence

from mmtpp.predict.forecast_result import Forecast, forecast_rows


def forecasts_to_json(
    forecasts: Sequence[Forecast], *, quantiles: Sequence[float], waits: Sequence[float] = ()
) -> list[dict[str, object]]:
    """Forecasts as JSON objects.

    Args:
        forecasts: Forecasts of one model, at least one.
        quantiles: Probabilities of the interval's quantiles, above 0 and below 1.
        waits: Times after the last event, in the model's unit, at which survival (the probability
            that no event has occurred) and hazard (the rate of the next event) are given.

    Returns:
        The columns of ``predict`` (``forecast_schema``), and with ``waits`` lists ``survival`` and
        ``hazard``. A hazard without a finite value is null.
    """
    answers = forecast_rows(forecasts, quantiles)
    for forecast, answer in zip(forecasts, answers, strict=True):
        if forecast.type_probabilities is not None:
            answer["type_probabilities"] = dict(forecast.type_probabilities)
        if waits and forecast.interval is not None:
            hazard = forecast.hazard(waits).tolist()
            answer["waits"] = list(waits)
            answer["survival"] = forecast.survival(waits).tolist()
            answer["hazard"] = [rate if math.isfinite(rate) else None for rate in hazard]
    return answers
