"""Who may send requests, and how large they may be."""

import asyncio
import json
from collections.abc import Sequence

import pytest

from mmtpp.core.errors import ConfigError
from mmtpp.serve.guards import Guard, read_token

LOCAL = ("127.0.0.1", 5)


def _ask(
    guard: Guard,
    *,
    headers: Sequence[tuple[bytes, bytes]] = (),
    body: Sequence[bytes] = (b"",),
    client: object = LOCAL,
    path: str = "/v1/events",
) -> tuple[int, dict]:
    """The status and the body of the answer to a request of several parts."""
    sent: list[dict] = []
    parts = list(body)

    async def receive() -> dict:
        part = parts.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(parts)}

    async def send(message) -> None:
        sent.append(message)

    scope = {"type": "http", "headers": list(headers), "client": client, "path": path}
    asyncio.run(guard(scope, receive, send))
    return sent[0]["status"], json.loads(sent[1]["body"])


async def _count(scope, receive, send) -> None:
    """Answers with the number of bytes that were read."""
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size, more = size + len(message["body"]), message["more_body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps({"size": size}).encode()})


def test_without_a_token_only_this_machine_is_answered():
    guard = Guard(_count, token="", max_bytes=10)
    assert _ask(guard) == (200, {"size": 0})
    assert _ask(guard, client=("::1", 5))[0] == 200
    for client in (("10.0.0.7", 5), None, ("", 0), ("localhost.example.com", 1)):
        status, answer = _ask(guard, client=client)
        assert status == 403
        assert "token_file" in answer["detail"]
    assert _ask(guard, client=("10.0.0.7", 5), path="/ready")[0] == 200


@pytest.mark.parametrize("name", [b"Forwarded", b"X-Forwarded-For", b"x-real-ip"])
def test_a_proxy_is_no_local_sender(name: bytes):
    guard = Guard(_count, token="", max_bytes=10)
    status, answer = _ask(guard, headers=[(name, b"10.0.0.7")])
    assert status == 403
    assert "token_file" in answer["detail"]
    guard = Guard(_count, token="secret", max_bytes=10)
    headers = [(name, b"10.0.0.7"), (b"authorization", b"Bearer secret")]
    assert _ask(guard, headers=headers)[0] == 200


def test_haproxy_needs_a_token(monkeypatch, tmp_path):
    """It listens on all addresses, and all requests come from its own."""
    monkeypatch.setenv("RAY_SERVE_ENABLE_HA_PROXY", "1")
    with pytest.raises(ConfigError, match="needs a token") as error:
        read_token("")
    assert "RAY_SERVE_ENABLE_HA_PROXY" in str(error.value)
    file = tmp_path / "token"
    file.write_text("secret")
    assert read_token(str(file)) == "secret"


def test_pages_of_other_hosts_are_refused():
    """Without a token: through the browser of a user, or a name that they gave this machine."""
    guard = Guard(_count, token="", max_bytes=10)
    for name, value in ((b"host", b"localhost:8000"), (b"host", b"[::1]:8000"),
                        (b"origin", b"http://127.0.0.1:8000")):  # fmt: skip
        assert _ask(guard, headers=[(name, value)])[0] == 200
    for name, value in ((b"host", b"evil.example:8000"), (b"origin", b"https://evil.example"),
                        (b"origin", b"null"), (b"host", b"[::1"), (b"host", b"")):  # fmt: skip
        assert _ask(guard, headers=[(name, value)])[0] == 403
    guard = Guard(_count, token="secret", max_bytes=10)
    headers = [(b"authorization", b"Bearer secret"), (b"host", b"live.example")]
    assert _ask(guard, headers=headers)[0] == 200


@pytest.mark.parametrize(
    "headers",
    [[], [(b"authorization", b"Bearer wrong")], [(b"authorization", b"secret")],
     [(b"authorization", b"Bearer secret ")], [(b"authorization", b"\xff")]],
)  # fmt: skip
def test_a_wrong_token_is_refused(headers: list):
    guard = Guard(_count, token="secret", max_bytes=10)
    status, answer = _ask(guard, headers=headers)
    assert status == 401
    assert "secret" not in json.dumps(answer)


def test_the_token_is_enough():
    guard = Guard(_count, token="secret", max_bytes=10)
    assert _ask(guard, path="/", client=("10.0.0.7", 5))[0] == 200  # the page asks for it
    right = [(b"Authorization", b"Bearer secret")]
    assert _ask(guard, headers=right, client=("10.0.0.7", 5)) == (200, {"size": 0})


def test_large_bodies_are_refused():
    guard = Guard(_count, token="", max_bytes=10)
    assert _ask(guard, body=[b"12345", b"67890"]) == (200, {"size": 10})
    status, answer = _ask(guard, body=[b"12345", b"67890", b"1"])
    assert status == 413
    assert "larger than 10 bytes" in answer["detail"]
    for length in (b"11", b"-1", b"x"):
        assert _ask(guard, headers=[(b"content-length", length)])[0] == 413


def test_the_token_is_read_from_its_file(tmp_path):
    file = tmp_path / "token"
    file.write_text("secret\n")
    assert read_token(str(file)) == "secret"
    assert read_token("") == ""
    file.write_text("\n")
    with pytest.raises(ConfigError, match="the file of the token is empty"):
        read_token(str(file))
    with pytest.raises(ConfigError, match="cannot be read"):
        read_token(str(tmp_path / "none"))
