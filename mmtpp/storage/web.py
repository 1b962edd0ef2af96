"""Files of web servers by ``https://``, for images that events name.

The names come from data, so a server may only be public, and it is asked for one file: no other
address than those its name stands for, no redirect, and no more bytes or seconds than allowed.
"""

import http.client
import ipaddress
import socket
import ssl
import time
from urllib.parse import urlsplit

from mmtpp.core.errors import DataError, FileTooLargeError, MissingFileError, StorageError

ATTEMPTS = 4
PAUSE_S = 0.5  # before the second attempt; it doubles
TIMEOUT_S = 20.0  # of a whole answer
CHUNK_BYTES = 2**16


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
    parts = urlsplit(uri)
    host = parts.hostname
    if parts.scheme != "https" or not host or parts.username is not None:
        raise DataError("not an address of a web server: https://HOST/PATH", where=_shown(uri))
    path = parts.path or "/"
    target = f"{path}?{parts.query}" if parts.query else path
    for attempt in range(ATTEMPTS):
        try:
            return _read_once(_Connection(host, parts.port or 443), target, uri, max_bytes)
        except (OSError, http.client.HTTPException) as error:
            if attempt + 1 == ATTEMPTS:
                raise StorageError(
                    f"cannot read the file in {ATTEMPTS} attempts: {error or type(error).__name__}",
                    where=_shown(uri),
                    cause="the server cannot be reached, is overloaded or has no valid certificate",
                ) from error
        time.sleep(PAUSE_S * 2**attempt)
    raise AssertionError("unreachable")


class _Connection(http.client.HTTPSConnection):
    """Connection to a public address of a server."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port, timeout=TIMEOUT_S)
        self._tls = ssl.create_default_context()

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
    try:
        connection.request("GET", target, headers={"Accept": "image/*", "User-Agent": "mmtpp"})
        answer = connection.getresponse()
        if answer.status >= 500 or answer.status == 429:
            raise http.client.HTTPException(f"the server answers {answer.status}")
        if answer.status != 200:
            cause = "redirects are not followed" if 300 <= answer.status < 400 else ""
            raise MissingFileError(
                f"the server answers {answer.status} {answer.reason}",
                where=_shown(uri),
                cause=cause,
            )
        data = bytearray()
        while chunk := answer.read(CHUNK_BYTES):
            data += chunk
            if len(data) > max_bytes:
                raise FileTooLargeError(f"more than {max_bytes} bytes", where=_shown(uri))
            if time.monotonic() - started > TIMEOUT_S:
                raise TimeoutError(f"no whole answer within {TIMEOUT_S:g} s")
        if answer.length:
            raise http.client.IncompleteRead(b"", answer.length)
        return bytes(data)
    finally:
        connection.close()


def _shown(uri: str) -> str:
    """The address without its query, which may hold a signature."""
    return urlsplit(uri)._replace(query="", netloc=urlsplit(uri).hostname or "").geturl()
