"""What a request must pass before it is read: its sender, its token and its size."""

import asyncio
import hmac
import ipaddress
import json
import os
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mmtpp.core.errors import ConfigError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

PAGE_PATHS = ("", "/")
"""Paths of the page, which holds nothing; a browser cannot send a token for it."""
_DRAINED_BODIES, _DRAIN_S = 8, 2.0
OPEN_PATHS = ("/health", "/ready")
"""Paths without a token: machines ask for them."""
PROXY_HEADERS = (b"forwarded", b"x-forwarded-for", b"x-real-ip")
"""Headers that proxies add; the sender of such a request is the proxy, whoever asked it."""


def read_token(token_file: str) -> str:
    """Read the token of a file; empty for no file.

    Raises:
        ConfigError: The file cannot be read, or it is empty; or there is no file, and requests come
            through HAProxy, which hides who sends them.
    """
    if not token_file:
        if os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") == "1":
            raise ConfigError(
                "behind Serve's HAProxy, the requests of all machines look like local ones, so the "
                "service needs a token",
                setting="token_file is empty; RAY_SERVE_ENABLE_HA_PROXY = 1",
            )
        return ""
    try:
        token = Path(token_file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"the token cannot be read: {error}", setting=f"token_file = {token_file}"
        ) from error
    if not token:
        raise ConfigError("the file of the token is empty", setting=f"token_file = {token_file}")
    return token


class Guard:
    """Refuses requests before the application reads them.

    Args:
        application: The application behind.
        token: Token that requests must send; empty answers requests from this machine only.
        max_bytes: Largest body of a request, in bytes.
    """

    def __init__(self, application: Application, *, token: str, max_bytes: int) -> None:
        self._application, self._token, self._max_bytes = application, token, max_bytes

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._drain(receive), _DRAIN_S)
            await _answer(send, *refusal)
            return
        read, is_too_large, has_more = 0, False, True

        async def receive_some() -> Message:
            nonlocal read, is_too_large, has_more
            message = await receive()
            read += len(message.get("body", b""))
            has_more = message.get("more_body", False)
            if read > self._max_bytes:
                is_too_large = True
                return {"type": "http.disconnect"}
            return message

        async def send_unless_too_large(message: Message) -> None:
            if not is_too_large:
                await send(message)

        try:
            await self._application(scope, receive_some, send_unless_too_large)
        finally:
            if is_too_large:
                if has_more:
                    await self._drain(receive)
                await _answer(send, 413, self._too_large())

    def _refusal(self, scope: Message) -> tuple[int, str] | None:
        headers = {name.lower(): value for name, value in scope["headers"]}
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self._max_bytes:
            return 413, self._too_large()
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if path in OPEN_PATHS:
            return None
        if self._token and path not in PAGE_PATHS:
            sent = headers.get(b"authorization", b"")
            if not hmac.compare_digest(sent, b"Bearer " + self._token.encode()):
                return 401, "send the token: Authorization: Bearer TOKEN"
        elif self._token:
            return None  # the page, which sends the token with its own requests
        elif not _is_local(scope.get("client")) or any(name in headers for name in PROXY_HEADERS):
            return 403, (
                "requests from other machines, or through a proxy, need a token; set token_file"
            )
        elif not _names_this_machine(headers):
            return 403, "requests of pages of other hosts need a token; set token_file"
        return None

    async def _drain(self, receive: Receive) -> None:
        """Read a refused body, within limits: many clients read no answer before they have sent."""
        read, has_more = 0, True
        while has_more and read <= _DRAINED_BODIES * self._max_bytes:
            message = await receive()
            read += len(message.get("body", b""))
            has_more = message.get("more_body", False)

    def _too_large(self) -> str:
        return f"the body is larger than {self._max_bytes:,} bytes (max_body_kib)"


def _is_local(client: Any) -> bool:
    try:
        return ipaddress.ip_address(client[0]).is_loopback
    except (TypeError, ValueError, IndexError):
        return False


def _names_this_machine(headers: dict[bytes, bytes]) -> bool:
    """Whether the addressed host, and the page that sends the request, are of this machine.

    A page of another host that the user's browser shows could otherwise reach the service.
    """
    addresses = [b"//" + headers.get(b"host", b"localhost")]
    if b"origin" in headers:
        addresses.append(headers[b"origin"])
    try:
        hosts = [urlsplit(address.decode("latin-1")).hostname for address in addresses]
    except ValueError:
        return False
    return all(host == "localhost" or _is_local((host,)) for host in hosts)


async def _answer(send: Send, status: int, message: str) -> None:
    body = json.dumps({"detail": message}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
