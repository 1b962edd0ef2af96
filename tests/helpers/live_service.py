"""A live service over HTTP: the real log and outcomes, behind a small server that may fail."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from mmtpp.serve.live_events import RejectedEvent
from mmtpp.serve.live_sequences import Accepted, AppendRequest, LiveSequences

Outcome = Accepted | RejectedEvent


@dataclass
class LiveService:
    """A running service.

    Attributes:
        url: Its address.
        live: Its sequences.
        faults: Status codes with which the next requests are answered; 0 for a request whose
            events are appended and whose connection then breaks; 200 for a right answer.
        bodies: Bodies of all requests.
        headers: Values of the header ``authorization`` of all requests.
        max_events: Largest number of events of a request.
    """

    url: str
    live: LiveSequences
    faults: list[int] = field(default_factory=list)
    bodies: list[dict] = field(default_factory=list)
    headers: list[str | None] = field(default_factory=list)
    max_events: int = 1000

    def times(self, name: str) -> list[float]:
        """The times of a sequence."""
        return self.live.log.read(name).times.tolist()

    def append(self, body: dict) -> tuple[int, dict]:
        """Answer a request as ``serve.gateway`` does, without forecasts."""
        [outcomes] = self.live.append([AppendRequest(body["events"])])
        rejected = [
            {"index": index, "cause": outcome.cause, "message": outcome.message}
            for index, outcome in enumerate(outcomes)
            if isinstance(outcome, RejectedEvent)
        ]
        answer = {"accepted": len(outcomes) - len(rejected), "rejected": rejected, "unknown": []}
        return 422 if rejected else 200, answer


@contextmanager
def live_service(live: LiveSequences) -> Iterator[LiveService]:
    """Serve sequences on a free port of this machine."""
    service = LiveService("", live)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(service))
    service.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(service: LiveService) -> Callable[..., BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            service.bodies.append(body)
            service.headers.append(self.headers["authorization"])
            fault = service.faults.pop(0) if service.faults else 200
            status, answer = fault, {"detail": f"fault {fault}"}
            if self.path != "/v1/events":
                status = 404
            elif len(body["events"]) > service.max_events:
                status, answer = 413, {"detail": "too many events"}
            elif fault in (0, 200):
                status, answer = service.append(body)
            if fault == 0:
                self.close_connection = True
                return
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments: object) -> None:
            """Print nothing."""

    return Handler
