"""A shard of the application: one process that holds its share of the sequences."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ray import serve
from ray.serve import metrics

from mmtpp.api.forecaster import Forecaster
from mmtpp.core.errors import MmtppError
from mmtpp.predict.forecast_result import Forecast
from mmtpp.serve.build_live_model import build_live_model
from mmtpp.serve.event_log import EventLog
from mmtpp.serve.forecast_json import forecasts_to_json
from mmtpp.serve.live_events import RejectedEvent
from mmtpp.serve.live_model import ForecastRequest, LiveModel
from mmtpp.serve.live_sequences import (
    Accepted,
    LiveSequences,
    Outcome,
    outcome_name,
)
from mmtpp.serve.settings import ServeSettings
from mmtpp.serve.shard_requests import ShardAppend, ShardForecast
from mmtpp.track.registered_model import PREFIX, RegisteredModel, find_registered_model

logger = logging.getLogger(__name__)

MAX_BATCH = 64
CONCURRENT_APPENDS = 8  # batches of appended events whose forecasts are computed in turns
DRIFT_EVERY_S = 5.0
MODEL_ARGUMENTS = ("model_uri", "base_uri")


class Shard:
    """Holds the sequences of one shard. Its requests are carried out one batch after the other.

    Between two batches of forecasts, it appends events and answers checks of its health.

    Args:
        settings: Arguments of the application, without the model.
        index: Index of the shard.
    """

    def __init__(self, settings: ServeSettings, index: int) -> None:
        self._settings, self._index = settings, index
        self._live: LiveSequences | None = None
        self._turn = asyncio.Lock()  # batches run one at a time, in the order of their requests
        self._model = RegisteredModel("", "", "")
        self._following: asyncio.Task[None] | None = None
        self._events = metrics.Counter(
            "mmtpp_serve_events", description="Events by outcome.", tag_keys=("outcome",)
        )
        self._forecasts = metrics.Counter("mmtpp_serve_forecasts", description="Forecasts.")
        self._states = metrics.Gauge(
            "mmtpp_serve_states", description="Figures of states in memory.", tag_keys=("figure",)
        )

        self._drift = metrics.Gauge(
            "mmtpp_serve_drift",
            description="Distance of the newest events from the forecasts before them.",
            tag_keys=("figure",),
        )
        self._next_drift = 0.0  # on the monotonic clock
        for method in (self.append, self.forecast):
            # an attribute of methods that serve.batch has wrapped
            method.set_batch_wait_timeout_s(settings.batch_wait_ms / 1e3)  # pyright: ignore[reportAttributeAccessIssue]

    async def reconfigure(self, model: Mapping[str, str]) -> None:
        """Load a model, and forecast with it from then on; the old one answers until then.

        Args:
            model: The arguments ``MODEL_ARGUMENTS``.
        """
        if self._following is not None:
            self._following.cancel()
            self._following = None
        await self._serve(await asyncio.to_thread(self._resolve, model))
        if model["model_uri"].startswith(PREFIX):
            self._following = asyncio.create_task(self._follow(model))

    async def _follow(self, model: Mapping[str, str]) -> None:
        """Forecast with another version when the registry names one."""
        while True:
            await asyncio.sleep(self._settings.follow_s)
            try:
                found = await asyncio.to_thread(self._resolve, model)
                if found != self._model:
                    await self._serve(found)
            except Exception:  # whatever fails, the present model still answers
                logger.exception("shard %d keeps %s", self._index, self._model.uri)

    def _resolve(self, model: Mapping[str, str]) -> RegisteredModel:
        uri, base = model["model_uri"], model["base_uri"]
        if not uri.startswith(PREFIX):
            return RegisteredModel(uri, uri, base)
        found = find_registered_model(uri, tracking_uri=self._settings.tracking_uri)
        return replace(found, base=base or found.base)

    async def _serve(self, model: RegisteredModel) -> None:
        loaded = await asyncio.to_thread(self._load, model)
        if self._live is None:
            path = self._settings.log_path(self._index)
            log = await asyncio.to_thread(EventLog, path)
            self._live = LiveSequences(log, loaded, max_text=self._settings.max_text)
        else:
            figures = self._live.model.drift()
            self._live.replace_model(loaded)
            for name in figures:  # of the model before; the new one has compared no event yet
                self._drift.set(0.0, {"figure": name})
        self._model = model
        # an attribute of methods that serve.batch has wrapped
        self.forecast.set_max_batch_size(loaded.max_batch)  # pyright: ignore[reportAttributeAccessIssue]
        logger.info("shard %d forecasts with %s", self._index, model.uri)

    def _load(self, model: RegisteredModel) -> LiveModel:
        forecaster = Forecaster.from_pretrained(
            model.path, base=model.base, expert=self._settings.expert_uri
        )
        share = -(-self._settings.max_sequences // self._settings.num_shards)
        watched_per_s = self._settings.watched_per_s / self._settings.num_shards
        cache_bytes = self._settings.max_cache_mib * 2**20 // self._settings.num_shards
        return build_live_model(
            forecaster,
            max_sequences=share,
            watched_per_s=watched_per_s,
            max_cache_bytes=cache_bytes,
        )

    @serve.batch(max_batch_size=MAX_BATCH, max_concurrent_batches=CONCURRENT_APPENDS)
    async def append(self, asked: list[ShardAppend]) -> list[dict[str, Any]]:
        """Append events, and forecast their sequences if asked for.

        Args:
            asked: New events.

        Returns:
            For each of them ``outcomes`` of its events, and ``forecasts`` by sequence.
        """
        outcomes = self._sequences.append([one.request for one in asked])
        labels = Counter(outcome_name(outcome) for of_request in outcomes for outcome in of_request)
        for label, count in labels.items():
            self._events.inc(count, {"outcome": label})
        wanted = {
            outcome.sequence_id: None
            for of_request, one in zip(outcomes, asked, strict=True)
            for outcome in of_request
            if one.with_forecast and isinstance(outcome, Accepted)
        }
        requests = [ShardForecast(ForecastRequest(name)) for name in wanted]
        answers = await self._answers_after_write(requests)
        # between two batches, another request may have removed the sequence
        removed = {"error": "the sequence was removed before it was forecast"}
        forecasts = {name: answer or removed for name, answer in zip(wanted, answers, strict=True)}
        self._set_gauges()
        return [
            {
                "outcomes": [_as_json(outcome) for outcome in of_request],
                "forecasts": {
                    outcome.sequence_id: forecasts[outcome.sequence_id]
                    for outcome in of_request
                    if one.with_forecast and isinstance(outcome, Accepted)
                },
            }
            for of_request, one in zip(outcomes, asked, strict=True)
        ]

    @serve.batch(max_batch_size=MAX_BATCH)
    async def forecast(self, asked: list[ShardForecast]) -> list[dict[str, Any]]:
        """Forecast sequences.

        Args:
            asked: The forecasts.

        Returns:
            For each of them ``forecast``, or ``error``, or neither for an unknown sequence.
        """
        results = await self._answers(asked)
        self._set_gauges()
        return results

    async def _answers_after_write(self, asked: Sequence[ShardForecast]) -> list[dict[str, Any]]:
        """Forecasts, or the error: the events are in the log, and their sender must know."""
        try:
            return await self._answers(asked)
        except MmtppError as error:
            logger.error("shard %d cannot forecast: %s", self._index, error)
            return [{"error": error.problem}] * len(asked)

    async def _answers(self, asked: Sequence[ShardForecast]) -> list[dict[str, Any]]:
        """Answers to any number of requests, batch by batch."""
        results: list[dict[str, Any]] = []
        while len(results) < len(asked):
            left = asked[len(results) :]
            async with self._turn:
                size = self._sequences.model.batch_size([one.request for one in left])
                results += self._answer(left[:size])
                await asyncio.sleep(0)  # appends and checks of health are carried out
        return results

    def _answer(self, asked: Sequence[ShardForecast]) -> list[dict[str, Any]]:
        answers = self._sequences.forecast([one.request for one in asked])
        self._forecasts.inc(len(asked))
        levels = self._sequences.model.forecaster.config.prediction.quantiles
        groups: dict[tuple[tuple[float, ...], tuple[float, ...]], list[int]] = {}
        results: list[dict[str, Any]] = [{}] * len(asked)
        for index, (answer, one) in enumerate(zip(answers, asked, strict=True)):
            if isinstance(answer, Forecast):
                groups.setdefault((one.quantiles or levels, one.waits), []).append(index)
            elif answer is not None:
                results[index] = {"error": str(answer)}
        for (quantiles, waits), indices in groups.items():
            forecasts = [f for index in indices if isinstance(f := answers[index], Forecast)]
            as_json = forecasts_to_json(forecasts, quantiles=quantiles, waits=waits)
            for index, forecast in zip(indices, as_json, strict=True):
                results[index] = {"forecast": {**forecast, "model": self._model.uri}}
        return results

    async def events(self, sequence_id: str, last: int) -> list[dict[str, Any]]:
        """The newest events of a sequence."""
        log, trained_tasks = self._sequences.log, self._sequences.model.forecaster.trained_tasks
        count = log.heads([sequence_id])[sequence_id].num_events
        sequence = log.read(sequence_id, start=max(0, count - last))
        return [
            {"time": float(time), "type": trained_tasks.name_of(int(code)), "text": text}
            for time, code, text in zip(sequence.times, sequence.types, sequence.texts, strict=True)
        ]

    async def remove(self, sequence_id: str) -> int:
        """Remove a sequence; returns the number of its events."""
        return self._sequences.remove(sequence_id)

    async def ready(self) -> str:
        """The URI of the model with which the shard forecasts."""
        return self._model.uri

    def check_health(self) -> None:
        """Serve replaces a shard whose log cannot be read. Figures of the last events are set."""
        if self._live is not None:
            self._live.log.heads([""])
            self._set_gauges()

    @property
    def _sequences(self) -> LiveSequences:
        assert self._live is not None, "Serve calls reconfigure before any other method"
        return self._live

    def _set_gauges(self) -> None:
        if (now := time.monotonic()) >= self._next_drift:
            self._next_drift = now + DRIFT_EVERY_S
            for name, value in self._sequences.model.drift().items():
                self._drift.set(value, {"figure": name})
        for name, value in self._sequences.model.counts().items():
            self._states.set(value, {"figure": name})


def _as_json(outcome: Outcome) -> dict[str, Any]:
    if isinstance(outcome, RejectedEvent):
        known = {} if outcome.num_events is None else {"events": outcome.num_events}
        return {"cause": outcome.cause, "message": outcome.message, **known}
    return {"position": outcome.position, "repeated": outcome.is_repeated}
