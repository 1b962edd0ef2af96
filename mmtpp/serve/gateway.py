"""The HTTP interface: reads requests, passes them to the shards of their sequences, answers.

The only shard of a service is in the gateway's process, so its requests make no second hop.
"""

import asyncio
import hashlib
import json
import logging
from collections.abc import Awaitable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Protocol, TypeVar

import orjson
from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi import Path as PathPart
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import BaseModel, ConfigDict, Field, StrictFloat, StrictInt
from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from mmtpp.core.errors import MmtppError
from mmtpp.serve.guards import Guard, read_token
from mmtpp.serve.live_events import MAX_NAME
from mmtpp.serve.live_model import ForecastRequest
from mmtpp.serve.live_sequences import AppendRequest
from mmtpp.serve.settings import ServeSettings
from mmtpp.serve.shard import Shard
from mmtpp.serve.shard_requests import ShardAppend, ShardForecast

logger = logging.getLogger(__name__)
_Answer = TypeVar("_Answer")

RETRY_AFTER_S = 1
MAX_SHOWN_EVENTS = 1000
CONFLICTS = ("out_of_order", "wrong_position", "key_in_use")
PAGE = Path(__file__).parent / "templates" / "live_page.html"

Name = Annotated[str, PathPart(min_length=1, max_length=MAX_NAME, description="Name of a sequence")]
Levels = Annotated[
    list[Annotated[float, Field(gt=0, lt=1)]],
    Query(max_length=100, description="Probabilities of the quantiles of the interval"),
]
Waits = Annotated[
    list[Annotated[float, Field(ge=0, allow_inf_nan=False)]],
    Query(
        max_length=1000,
        description="Times after the last event at which survival and hazard are given",
    ),
]
Horizon = Annotated[
    float, Query(ge=0, allow_inf_nan=False, description="Length of a future; 0: no limit")
]
Seed = Annotated[int, Query(ge=0, lt=2**63, description="Seed of the futures")]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class NewEvent(_Body):
    """An event of the sequence in the address."""

    time: StrictInt | StrictFloat | str
    """Number in the model's unit, or a date."""
    type: StrictInt | StrictFloat | str
    """Name or code of the type."""
    text: str | None = None
    """Text of the event."""
    key: str | None = None
    """Key by which a repeated event is recognised, unique in the sequence."""


class NewEvents(_Body):
    """Events of one sequence, in order; all are accepted, or none."""

    events: list[NewEvent] = Field(min_length=1)
    after: int | None = Field(default=None, ge=0)
    """Number of events that the sequence has before. With it, a request that is sent again after a
    lost answer is refused instead of appending its events twice."""


class MixedEvents(_Body):
    """Events of many sequences; each is accepted or rejected alone."""

    events: list[dict[str, Any]] = Field(min_length=1)
    """Objects with sequence, time, type and perhaps text and key."""
    forecast: bool = False
    """Whether the answer has a forecast of each sequence with an accepted event."""


def shard_of(sequence_id: str, num_shards: int) -> int:
    """The shard of a sequence, the same in every process."""
    digest = hashlib.blake2b(sequence_id.encode(errors="replace"), digest_size=8).digest()
    return int.from_bytes(digest, "big") % num_shards


class AnyShard(Protocol):
    """A shard in this process or in another one; its methods are those of ``Shard``."""

    def append(self, asked: ShardAppend, /) -> Awaitable[dict[str, Any]]: ...

    def forecast(self, asked: ShardForecast, /) -> Awaitable[dict[str, Any]]: ...

    def events(self, sequence_id: str, last: int) -> Awaitable[list[dict[str, Any]]]: ...

    def remove(self, sequence_id: str) -> Awaitable[int]: ...

    def ready(self) -> Awaitable[str]: ...


class RemoteShard:
    """A shard in another process.

    Args:
        handle: Serve's handle of the shard.
    """

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle

    def append(self, asked: ShardAppend, /) -> Awaitable[dict[str, Any]]:
        """Call ``Shard.append``."""
        return self._handle.append.remote(asked)

    def forecast(self, asked: ShardForecast, /) -> Awaitable[dict[str, Any]]:
        """Call ``Shard.forecast``."""
        return self._handle.forecast.remote(asked)

    def events(self, sequence_id: str, last: int) -> Awaitable[list[dict[str, Any]]]:
        """Call ``Shard.events``."""
        return self._handle.events.remote(sequence_id, last)

    def remove(self, sequence_id: str) -> Awaitable[int]:
        """Call ``Shard.remove``."""
        return self._handle.remove.remote(sequence_id)

    def ready(self) -> Awaitable[str]:
        """Call ``Shard.ready``."""
        return self._handle.ready.remote()


class Gateway:
    """Answers requests.

    Args:
        settings: Arguments of the application, without the model.
        shards: Serve's handles of the shards, in order.
    """

    def __init__(self, settings: ServeSettings, shards: Sequence[DeploymentHandle]) -> None:
        self._settings = settings
        self._shards: list[AnyShard] = [RemoteShard(handle) for handle in shards]

    def __serve_build_asgi_app__(self) -> FastAPI:
        """The application that Serve calls with requests."""
        return web_application(self._settings, self)

    async def append(self, sequence_id: str, body: NewEvents) -> dict[str, Any]:
        """Append events to a sequence."""
        self._check_number(len(body.events))
        events = [
            {"sequence": sequence_id, **event.model_dump(exclude_none=True)}
            for event in body.events
        ]
        request = AppendRequest(events, body.after, all_or_none=True)
        answer = await self._ask(self._shard(sequence_id).append(ShardAppend(request)))
        outcomes = answer["outcomes"]
        rejected = [
            {"index": index, **outcome}
            for index, outcome in enumerate(outcomes)
            if "cause" in outcome and outcome["cause"] != "rejected_with_others"
        ]
        if rejected:
            status = 409 if rejected[0]["cause"] in CONFLICTS else 422
            raise HTTPException(status, {"rejected": rejected})
        return _summary(outcomes)

    async def append_mixed(self, body: MixedEvents) -> dict[str, Any]:
        """Append events of many sequences, and forecast them if asked for."""
        self._check_number(len(body.events))
        groups: dict[int, list[int]] = {}
        for index, event in enumerate(body.events):
            name = event.get("sequence")
            shard = shard_of(name, len(self._shards)) if isinstance(name, str) else 0
            groups.setdefault(shard, []).append(index)
        calls = [
            self._append_part(shard, [body.events[index] for index in indices], body.forecast)
            for shard, indices in groups.items()
        ]
        answers = await asyncio.gather(*calls)
        outcomes: list[dict[str, Any]] = [{}] * len(body.events)
        for indices, answer in zip(groups.values(), answers, strict=True):
            for index, outcome in zip(indices, answer["outcomes"], strict=True):
                outcomes[index] = outcome
        result: dict[str, Any] = _summary(outcomes)
        result["rejected"] = [
            {"index": index, **outcome}
            for index, outcome in enumerate(outcomes)
            if "cause" in outcome
        ]
        result["unknown"] = [
            {"index": index, "message": outcome["unknown"]}
            for index, outcome in enumerate(outcomes)
            if "unknown" in outcome
        ]
        if body.forecast:
            result["forecasts"] = [
                found.get("forecast", {"sequence_id": name, **found})
                for answer in answers
                for name, found in answer["forecasts"].items()
            ]
        return result

    async def _append_part(
        self, shard: int, events: Sequence[object], with_forecast: bool
    ) -> dict[str, Any]:
        """The answer of one shard; without it, nobody knows whether its events were appended."""
        call = self._shards[shard].append(ShardAppend(AppendRequest(events), with_forecast))
        try:
            return await self._ask(call)
        except HTTPException as error:
            unknown = {"unknown": str(error.detail)}
            return {"outcomes": [unknown] * len(events), "forecasts": {}}

    async def forecast(
        self,
        sequence_id: str,
        quantiles: Sequence[float] = (),
        waits: Sequence[float] = (),
        options: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Forecast a sequence; ``options`` are further fields of ``ForecastRequest``."""
        request = ForecastRequest(sequence_id, **(options or {}))
        asked = ShardForecast(request, tuple(quantiles), tuple(waits))
        answer = await self._ask(self._shard(sequence_id).forecast(asked))
        if "error" in answer:
            raise HTTPException(422, answer["error"])
        if "forecast" not in answer:
            raise HTTPException(404, f"the sequence {sequence_id!r} has no events")
        return answer["forecast"]

    async def events(self, sequence_id: str, last: int) -> dict[str, Any]:
        """The newest events of a sequence."""
        events = await self._ask(self._shard(sequence_id).events(sequence_id, last))
        if not events:
            raise HTTPException(404, f"the sequence {sequence_id!r} has no events")
        return {"sequence_id": sequence_id, "events": events}

    async def remove(self, sequence_id: str) -> dict[str, int]:
        """Remove a sequence."""
        removed = await self._ask(self._shard(sequence_id).remove(sequence_id))
        if not removed:
            raise HTTPException(404, f"the sequence {sequence_id!r} has no events")
        return {"removed": removed}

    async def ready(self) -> dict[str, Any]:
        """The models of the shards; an error while a shard is away."""
        models = await asyncio.gather(*(self._ask(shard.ready()) for shard in self._shards))
        return {"shards": len(models), "models": sorted(set(models))}

    def check_futures(self, number: int) -> None:
        """Refuse more futures than ``max_futures``."""
        if number > self._settings.max_futures:
            most = self._settings.max_futures
            raise HTTPException(422, f"futures = {number}; max_futures = {most}")

    def _check_number(self, number: int) -> None:
        if number > self._settings.max_events:
            most = self._settings.max_events
            raise HTTPException(413, f"the request has {number:,} events; max_events = {most:,}")

    def _shard(self, sequence_id: str) -> AnyShard:
        return self._shards[shard_of(sequence_id, len(self._shards))]

    async def _ask(self, call: Awaitable[_Answer]) -> _Answer:
        """The answer of a shard.

        Raises:
            HTTPException: The shard is away, cannot write, or does not answer in time: 503.
        """
        try:
            return await asyncio.wait_for(call, self._settings.timeout_s)
        except MmtppError as error:  # such as a full disk
            logger.error("a shard refused a request: %s", error)
            raise _unavailable(error.problem) from error
        except RayTaskError:
            raise  # a fault of the program: 500
        except (RayError, RayServeException, TimeoutError) as error:
            logger.warning("a shard did not answer: %s", error)
            name = type(error).__name__
            raise _unavailable(f"the process of this sequence does not answer ({name})") from error


class GatewayWithShard(Gateway):
    """Answers requests for the only shard, which is in the same process.

    Args:
        settings: Arguments of the application, without the model.
    """

    def __init__(self, settings: ServeSettings) -> None:
        super().__init__(settings, [])
        self._only = Shard(settings, 0)
        self._shards = [self._only]

    async def reconfigure(self, model: Mapping[str, str]) -> None:
        """Load a model, see ``Shard.reconfigure``."""
        await self._only.reconfigure(model)

    def check_health(self) -> None:
        """Serve replaces a process whose log cannot be read."""
        self._only.check_health()


def _unavailable(problem: str) -> HTTPException:
    headers = {"Retry-After": str(RETRY_AFTER_S)}
    return HTTPException(503, f"{problem}; send the request again", headers)


def _summary(outcomes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    accepted = [outcome for outcome in outcomes if "position" in outcome]
    repeated = sum(outcome["repeated"] for outcome in accepted)
    return {"accepted": len(accepted) - repeated, "repeated": repeated}


class JsonResponse(JSONResponse):
    """Answers of many numbers, written by ``orjson``."""

    def render(self, content: object) -> bytes:
        """The content as JSON."""
        return orjson.dumps(content)


async def _answer_invalid(_request: Request, error: Exception) -> Response:
    """What is wrong with a request, without its values, which may be no valid JSON."""
    assert isinstance(error, RequestValidationError)
    faults = [{key: fault[key] for key in ("type", "loc", "msg")} for fault in error.errors()]
    return Response(json.dumps({"detail": faults}), 422, media_type="application/json")


async def _answer_fault(_request: Request, error: Exception) -> Response:
    """A fault of the program, in JSON: the 500 of a proxy, whose process died, is plain text."""
    return JSONResponse({"detail": f"the service has a fault: {type(error).__name__}"}, 500)


def web_application(settings: ServeSettings, gateway: Gateway) -> FastAPI:
    """The FastAPI application with its routes, behind ``Guard``."""
    web = FastAPI(
        title="mmtpp",
        description="Forecasts of live sequences of events.",
        docs_url=None,  # these pages load programs from other servers
        redoc_url=None,
    )
    web.add_middleware(
        Guard,  # pyright: ignore[reportArgumentType] # a class that Starlette calls with the rest
        token=read_token(settings.token_file),
        max_bytes=1024 * settings.max_body_kib,
    )
    web.add_exception_handler(RequestValidationError, _answer_invalid)
    web.add_exception_handler(Exception, _answer_fault)

    @web.post("/v1/sequences/{sequence_id:path}/events", summary="Append events to a sequence")
    async def append(sequence_id: Name, body: NewEvents) -> JsonResponse:
        return JsonResponse(await gateway.append(sequence_id, body))

    @web.post("/v1/events", summary="Append events of many sequences")
    async def append_mixed(body: MixedEvents) -> JsonResponse:
        result = await gateway.append_mixed(body)
        status = 503 if result["unknown"] else 422 if result["rejected"] else 200
        return JsonResponse(result, status)

    @web.get("/v1/sequences/{sequence_id:path}/forecast", summary="Forecast the next event")
    async def forecast(
        sequence_id: Name,
        quantiles: Levels = [],  # noqa: B006 # FastAPI copies it
        waits: Waits = [],  # noqa: B006
        futures: Annotated[int, Query(ge=0, description="Number of sampled futures")] = 0,
        horizon: Horizon = 0,
        text: Annotated[bool, Query(description="Whether a text is generated")] = False,
        seed: Seed = 0,
    ) -> JsonResponse:
        gateway.check_futures(futures)
        options = {"futures": futures, "horizon": horizon, "text": text, "seed": seed}
        return JsonResponse(await gateway.forecast(sequence_id, quantiles, waits, options))

    @web.get("/v1/sequences/{sequence_id:path}/events", summary="The newest events of a sequence")
    async def events(
        sequence_id: Name, last: Annotated[int, Query(ge=1, le=MAX_SHOWN_EVENTS)] = 100
    ) -> JsonResponse:
        return JsonResponse(await gateway.events(sequence_id, last))

    @web.delete("/v1/sequences/{sequence_id:path}", summary="Remove a sequence and its events")
    async def remove(sequence_id: Name) -> dict[str, int]:
        return await gateway.remove(sequence_id)

    _add_status(web, gateway)
    return web


def _add_status(web: FastAPI, gateway: Gateway) -> None:
    """Add the page and the checks of health."""

    @web.get("/health", summary="Whether the process answers")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @web.get("/ready", summary="Whether all shards have their model")
    async def ready() -> dict[str, Any]:
        return await gateway.ready()

    @web.get("/", summary="A page that shows a live sequence")
    async def page() -> HTMLResponse:
        return HTMLResponse(PAGE.read_text(encoding="utf-8"))
