"""Requests to a service of live forecasts that may be sent again."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from http.client import HTTPException
from typing import Any

from mmtpp.core.errors import ConfigError, MmtppError, StorageError

ATTEMPTS = 3
TIMEOUT_S = 60.0  # of one request
_WRONG_ADDRESS = (401, 403, 404, 405)
_TOO_LARGE = 413
_INVALID = 422
_AGAIN = (408, 409, 429, 500, 502, 503, 504)


class ServiceAwayError(MmtppError):
    """The service did not answer, or asked to send the request again."""


class ServiceClient:
    """Appends events of many sequences by ``POST /v1/events``.

    Args:
        url: Address of the service.
        token: Its token; empty for none.
        wait: Function that waits for a number of seconds.
    """

    def __init__(self, url: str, token: str, wait: Callable[[float], object] = time.sleep) -> None:
        self.url = url.rstrip("/")
        self._wait = wait
        self._headers = {"content-type": "application/json"}
        if token:
            self._headers["authorization"] = f"Bearer {token}"

    def append(self, events: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Append events, each of which has a ``key``, so that they are appended once.

        Args:
            events: Events as the service reads them.

        Returns:
            The refused events: ``index``, ``cause`` and ``message``.

        Raises:
            ServiceAwayError: The service did not take all events, after several attempts.
            ConfigError: The address or the token is wrong.
            StorageError: The service refuses the request for another reason.
        """
        status, answer = self._send_again(events)
        if status == 200:
            return []
        if status == _INVALID and isinstance(answer, dict) and "rejected" in answer:
            return answer["rejected"]
        if status == _TOO_LARGE:
            return self._append_halves(events, answer)
        raise self._refused(status, answer)

    def _append_halves(
        self, events: Sequence[dict[str, Any]], answer: object
    ) -> list[dict[str, Any]]:
        if len(events) == 1:
            return [{"index": 0, "cause": "too_large", "message": str(_detail(answer))}]
        middle = len(events) // 2
        first, later = self.append(events[:middle]), self.append(events[middle:])
        return [*first, *({**item, "index": item["index"] + middle} for item in later)]

    def _send_again(self, events: Sequence[dict[str, Any]]) -> tuple[int, Any]:
        """The answer to a request, after up to ``ATTEMPTS`` attempts."""
        body = json.dumps({"events": list(events)}, ensure_ascii=False).encode()
        problem = ""
        for attempt in range(ATTEMPTS):
            if attempt:
                self._wait(2.0 ** (attempt - 2))
            try:
                status, answer = self._send(body)
            except (OSError, HTTPException) as error:
                problem = f"{type(error).__name__}: {error}"
                continue
            if status not in _AGAIN:
                return status, answer
            problem = f"status {status}: {_detail(answer)}"
        raise ServiceAwayError(
            f"the service does not take events: {problem}"[:500],
            where=self.url,
            cause="it is away, starting or too slow; the events are sent again",
            setting=f"stream.service = {self.url}",
        )

    def _send(self, body: bytes) -> tuple[int, Any]:
        request = urllib.request.Request(f"{self.url}/v1/events", body, self._headers)
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
                return answer.status, _parse(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, _parse(error.read())

    def _refused(self, status: int, answer: object) -> MmtppError:
        problem = f"the service refuses events with status {status}: {_detail(answer)}"[:500]
        if status in _WRONG_ADDRESS:
            return ConfigError(
                problem,
                where=self.url,
                cause="the address is of another program, or the token is missing or wrong",
                setting="stream.service, stream.service_token_file",
            )
        return StorageError(
            problem,
            where=self.url,
            cause="the service is of another version",
            setting=f"stream.service = {self.url}",
        )


def _parse(content: bytes) -> object:
    """A JSON body; the text of any other body."""
    try:
        return json.loads(content)
    except ValueError:
        return content.decode("utf-8", "replace")


def _detail(answer: object) -> object:
    return answer.get("detail", answer) if isinstance(answer, dict) else answer
