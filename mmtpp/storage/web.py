"""Files of web servers by ``https://``, for images that events name.

The names come from data, so a server may only be public, and it is asked for one file: no other
address than those its name stands for, no redirect, and no more bytes or seconds than allowed.
"""

import http.client
import ipaddress
import socket
import ssl
import threading
import time
from contextlib import suppress
from urllib.parse import quote, urlsplit

from mmtpp.core.errors import DataError, FileTooLargeError, MissingFileError, StorageError

ATTEMPTS = 4
PAUSE_S = 0.5  # before the second attempt; it doubles
TIMEOUT_S = 20.0  # of a whole answer
CHUNK_BYTES = 2**16
_NOT_ESCAPED = "%/:?#[]@!$&'()*+,;=~"


def read_https(uri: str, *, max_bytes: int) -> bytes:
    """Read a file of a web server.

    Args:
        uri: Address that begins with ``https://``.
        max_bytes: Largest size; a larger file is refused.

    Raises:
        DataError: The address is not one of a public web server.
        MissingFileError: The server answers with another status than 200.
        FileTooLargeError: The file has more than ``max_bytes``.
        StorageError: The server cannot be reached, or fails or is too slow repeatedly.
    """
    host, port, target = _request_of(uri)
    for attempt in range(ATTEMPTS):
        try:
            return _read_once(_Connection(host, port), target, uri, max_bytes)
        except (OSError, http.client.HTTPException) as error:
            if attempt + 1 == ATTEMPTS:
                raise StorageError(
                    f"cannot read the file in {ATTEMPTS} attempts: {error or type(error).__name__}",
                    where=public_part(uri),
                    cause="the server cannot be reached, is overloaded or has no valid certificate",
                ) from error
        time.sleep(PAUSE_S * 2**attempt)
    raise AssertionError("unreachable")


def _request_of(uri: str) -> tuple[str, int, str]:
    """Host, port and target of the request for an address.

    Raises:
        DataError: The address is not one of a web server.
    """
    try:
        parts = urlsplit(uri)
        host, port = (parts.hostname or "").encode("idna").decode(), parts.port or 443
    except ValueError:  # also the errors of the encoding
        parts, host, port = None, "", 0
    if parts is None or parts.scheme != "https" or not host or parts.username is not None:
        raise DataError("not an address of a web server: https://HOST/PATH", where=public_part(uri))
    # what is escaped stays as it is; blanks and letters beyond ASCII are escaped
    path, query = (quote(part, safe=_NOT_ESCAPED) for part in (parts.path or "/", parts.query))
    return host, port, f"{path}?{query}" if query else path


class _Connection(http.client.HTTPSConnection):
    """Connection to a public address of a server."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port, timeout=TIMEOUT_S)
        self._tls = ssl.create_default_context()

    def abort(self) -> None:
        """End the connection, from another thread: what waits for the server then fails."""
        if self.sock is not None:
            with suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)

    def connect(self) -> None:
        """Connect to the first public address of the host.

        The address is checked and used here, so that its name cannot stand for another one later.
        """
        addresses = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        public = [str(address[4][0]) for address in addresses if is_public(str(address[4][0]))]
        if not public:
            raise DataError(
                "the server has no public address",
                where=self.host,
                cause="images are not read from addresses of private networks",
            )
        connection = socket.create_connection((public[0], self.port), timeout=TIMEOUT_S)
        self.sock = self._tls.wrap_socket(connection, server_hostname=self.host)


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the public internet."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(parsed, "ipv4_mapped", None) or parsed
    return mapped.is_global and not mapped.is_multicast


def _read_once(connection: _Connection, target: str, uri: str, max_bytes: int) -> bytes:
    """Read the answer to one request."""
    started = time.monotonic()
    # a timeout of the socket bounds each wait, this the whole answer
    deadline = threading.Timer(TIMEOUT_S, connection.abort)
    deadline.daemon = True
    deadline.start()
    try:
        connection.request("GET", target, headers={"Accept": "image/*", "User-Agent": "mmtpp"})
        answer = connection.getresponse()
        if answer.status >= 500 or answer.status == 429:
            raise http.client.HTTPException(f"the server answers {answer.status}")
        if answer.status != 200:
            cause = "redirects are not followed" if 300 <= answer.status < 400 else ""
            raise MissingFileError(
                f"the server answers {answer.status} {answer.reason}",
                where=public_part(uri),
                cause=cause,
            )
        data = bytearray()
        while chunk := answer.read(CHUNK_BYTES):
            data += chunk
            if len(data) > max_bytes:
                raise FileTooLargeError(f"more than {max_bytes} bytes", where=public_part(uri))
        if time.monotonic() - started > TIMEOUT_S:
            raise TimeoutError(f"no whole answer within {TIMEOUT_S:g} s")
        if answer.length:
            raise http.client.IncompleteRead(b"", answer.length)
        return bytes(data)
    finally:
        deadline.cancel()
        connection.close()


def public_part(uri: str) -> str:
    """The address without user and query, which may hold a password or a signature."""
    head, separator, rest = uri.partition("?")[0].partition("://")
    host, slash, path = rest.partition("/")
    return f"{head}{separator}{host.rpartition('@')[2]}{slash}{path}"
