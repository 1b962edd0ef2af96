"""A proxy between a client and a storage server: some requests fail as in a bad network."""

import socket
import socketserver
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_BODY = b"<Error><Code>SlowDown</Code><Message>slow down</Message></Error>"
UNAVAILABLE = (
    b"HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_BODY), _BODY)
)
SLOW_S, SILENT_S = 1.0, 5.0
Choose = Callable[[int, str], str]
"""Returns the fault of a request from its number and its first line.

Faults are ``unavailable``, ``reset`` (before the answer), ``cut`` (in the middle of the answer),
``silent`` (no data after the middle of the answer), ``slow``, or the empty text for no fault.
"""


@contextmanager
def fault_proxy(port: int, choose: Choose) -> Iterator[tuple[str, Counter[str]]]:
    """Run a proxy of ``127.0.0.1:port``.

    Yields:
        The address of the proxy, and the number of requests by fault ("" for no fault).
    """
    counts: Counter[str] = Counter()
    lock = threading.Lock()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            head = _head(self.request)
            if not head:
                return
            with lock:
                fault = choose(sum(counts.values()), head.partition(b"\r\n")[0].decode())
                counts[fault] += 1
            if fault == "unavailable":
                self.request.sendall(UNAVAILABLE)
            elif fault == "reset":
                _reset(self.request)
            else:
                time.sleep(SLOW_S if fault == "slow" else 0)
                _relay(self.request, port, head, stop_with=fault)

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = True
        request_queue_size = 64

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", counts
        finally:
            server.shutdown()


def _head(client: socket.socket) -> bytes:
    """The head of the next request, with the part of its body that arrived with it."""
    head = b""
    while b"\r\n\r\n" not in head:
        received = client.recv(65536)
        if not received:
            return b""
        head += received
    # one request per connection, so that the proxy sees every request
    request_line, _, headers = head.partition(b"\r\n")
    return request_line + b"\r\nConnection: close\r\n" + headers


def _relay(client: socket.socket, port: int, head: bytes, *, stop_with: str) -> None:
    with socket.create_connection(("127.0.0.1", port)) as server:
        server.sendall(head)
        copier = threading.Thread(target=_copy, args=(client, server), daemon=True)
        copier.start()
        while received := server.recv(65536):
            if stop_with not in ("cut", "silent"):
                client.sendall(received)
                continue
            client.sendall(received[: len(received) // 2])
            if stop_with == "silent":
                time.sleep(SILENT_S)
            client.shutdown(socket.SHUT_RD)  # ends the other thread
            copier.join()
            _reset(client)
            return


def _copy(source: socket.socket, target: socket.socket) -> None:
    try:
        while received := source.recv(65536):
            target.sendall(received)
    except OSError:
        return  # the other side has closed the connection


def _reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
