"""Images by whole URIs, from web servers, and as bytes in a column."""

import base64
import datetime
import io
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pandas as pd
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from PIL import Image

import mmtpp
from mmtpp.core.errors import DataError, FileTooLargeError, MissingFileError, StorageError
from mmtpp.data.sources.columns import Columns
from mmtpp.data.sources.tables import CsvFormat
from mmtpp.data.store.images import load_image
from mmtpp.model.tokens.vocabulary import train_tokenizer
from mmtpp.storage import web
from mmtpp.storage.image_files import describe_image, locate_image, name_of_bytes, read_image
from mmtpp.storage.web import is_public, read_https
from tests.helpers.steps import encode_shard
from tests.helpers.tables import parquet_bytes

ROOTS = ("s3://pictures/2024/", "https://images.example/a", "/mnt/pictures")


def _png(color: tuple[int, int, int] = (200, 0, 0)) -> bytes:
    sink = io.BytesIO()
    Image.new("RGB", (60, 60), color).save(sink, format="PNG")
    return sink.getvalue()


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("i/a.png", "s3://raw/i/a.png"),
        ("s3://pictures/2024/i/a.png", "s3://pictures/2024/i/a.png"),
        ("https://images.example/a/b.png?size=9", "https://images.example/a/b.png?size=9"),
        ("/mnt/pictures/a.png", "/mnt/pictures/a.png"),
        ("data:;base64,AAAA", "data:;base64,AAAA"),
    ],
)
def test_images_below_the_source_and_the_roots_are_found(image: str, expected: str):
    assert locate_image(image, source_uri="s3://raw", roots=ROOTS) == expected


@pytest.mark.parametrize(
    "image",
    [
        "s3://pictures/2025/a.png",
        "s3://pictures/2024/../2025/a.png",
        "s3://pictures/2024evil/a.png",
        "https://images.example/b/c.png",
        "https://images.example/a/../b.png",
        "https://images.example/a/%2e%2E/b.png",
        "https://images.example.evil/a/b.png",
        "http://images.example/a/b.png",
        "file:///etc/passwd",
        "/etc/passwd",
        "/mnt/pictures/../secret.png",
        "../secret.png",
        "C:/secret.png",
    ],
)
def test_images_elsewhere_are_refused(image: str):
    with pytest.raises(DataError, match=r"outside|leaves"):
        locate_image(image, source_uri="s3://raw", roots=ROOTS)


def test_the_error_for_a_whole_uri_names_the_setting():
    with pytest.raises(DataError, match=r"(?s)outside of the source folder.*source\.image_roots"):
        locate_image("s3://other/a.png", source_uri="s3://raw")


def test_bytes_in_a_name_are_the_file():
    name = name_of_bytes(b"\x00\xff" * 50)
    assert read_image(name, max_bytes=100) == b"\x00\xff" * 50
    assert describe_image(name) == f"data:;base64,... ({len(name)} characters)"
    with pytest.raises(FileTooLargeError, match="more than 90 bytes"):
        read_image(name, max_bytes=90)
    with pytest.raises(DataError, match="must be in base64"):
        read_image("data:image/svg+xml,<svg/>", max_bytes=100)
    with pytest.raises(DataError, match="not base64"):
        read_image("data:;base64,@@@@", max_bytes=100)


class _Handler(BaseHTTPRequestHandler):
    """A web server of images with faults, by path."""

    answers: ClassVar[dict[str, list[int]]] = {}  # statuses before a path is served
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        waiting = self.answers.get(self.path, [])
        if waiting:
            self.send_response(waiting.pop(0))
            self.send_header("Location", "https://127.0.0.1/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        data = _png()
        if self.path == "/drip.png":
            with suppress(OSError):
                for letter in b"HTTP/1.1 200 OK" + b"x" * 40:
                    self.wfile.write(bytes([letter]))
                    time.sleep(0.1)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.path == "/slow.png":
            time.sleep(1.5)
        self.wfile.write(data[: 10 if self.path == "/cut.png" else None])

    def log_message(self, *_: object) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        pass


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> Path:
    """A certificate and its key for 127.0.0.1, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.write_bytes(private + built.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.fixture
def server(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A web server on this machine, whose address counts as public."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    _Handler.answers, _Handler.asked = {}, []
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as http:
        http.socket = context.wrap_socket(http.socket, server_side=True)
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        monkeypatch.setattr(web, "is_public", lambda address: address == "127.0.0.1")
        monkeypatch.setattr(web, "PAUSE_S", 0.01)
        yield f"https://localhost:{http.server_port}"
        http.shutdown()
        thread.join()


def test_an_image_of_a_web_server_is_read_after_failures(server: str):
    _Handler.answers["/a.png?size=9"] = [503, 429]
    assert read_https(f"{server}/a.png?size=9", max_bytes=10**6) == _png()
    assert _Handler.asked == ["/a.png?size=9"] * 3
    assert load_image(f"{server}/a.png", image_px=56).shape == (56, 56, 3)


@pytest.mark.parametrize(
    ("path", "statuses", "error", "message"),
    [
        ("/none.png?key=secret", [404], MissingFileError, "answers 404"),
        ("/moved.png", [302], MissingFileError, "redirects are not followed"),
        ("/broken.png", [500] * 9, StorageError, "in 4 attempts: the server answers 500"),
        ("/cut.png", [], StorageError, "in 4 attempts"),
    ],
)
def test_faults_of_a_web_server(
    server: str, path: str, statuses: list[int], error: type, message: str
):
    _Handler.answers[path] = statuses
    with pytest.raises(error, match=message) as caught:
        read_https(f"{server}{path}", max_bytes=10**6)
    assert "secret" not in str(caught.value)
    assert not any("elsewhere" in asked for asked in _Handler.asked)


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/a b.png", "/a%20b.png"),
        ("/ä%20.png?x=ü&y=1", "/%C3%A4%20.png?x=%C3%BC&y=1"),
        ("/a\r\nHost: other.png", "/aHost:%20other.png"),  # no header of its own
    ],
)
def test_addresses_as_people_write_them(server: str, path: str, asked: str):
    assert read_https(f"{server}{path}", max_bytes=10**6) == _png()
    assert _Handler.asked == [asked]


def test_a_server_that_sends_byte_after_byte_is_given_up(
    server: str, monkeypatch: pytest.MonkeyPatch
):
    """Each byte comes in time for the timeout of the socket, the answer does not."""
    monkeypatch.setattr(web, "TIMEOUT_S", 0.6)
    monkeypatch.setattr(web, "ATTEMPTS", 1)
    started = time.monotonic()
    with pytest.raises(StorageError):
        read_https(f"{server}/drip.png", max_bytes=10**6)
    assert time.monotonic() - started < 3


def test_passwords_and_signatures_are_not_shown():
    uri = "https://user:word@images.example/a.png?signature=secret"
    assert describe_image(uri) == "https://images.example/a.png"
    with pytest.raises(DataError) as caught:
        locate_image(uri, source_uri="s3://raw")
    assert "secret" not in str(caught.value)
    assert "word" not in str(caught.value)


def test_answers_are_bounded_in_size_and_time(server: str, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(FileTooLargeError, match="more than 100 bytes"):
        read_https(f"{server}/a.png", max_bytes=100)
    monkeypatch.setattr(web, "TIMEOUT_S", 0.5)
    monkeypatch.setattr(web, "ATTEMPTS", 1)
    with pytest.raises(StorageError, match=r"timed out|within 0\.5 s"):
        read_https(f"{server}/slow.png", max_bytes=10**6)


def test_certificates_are_checked(server: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("SSL_CERT_FILE")
    monkeypatch.setattr(web, "ATTEMPTS", 1)
    with pytest.raises(StorageError, match=r"(?s)CERTIFICATE_VERIFY_FAILED.*no valid certificate"):
        read_https(f"{server}/a.png", max_bytes=10**6)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("127.0.0.1", False),
        ("10.0.0.1", False),
        ("169.254.169.254", False),  # credentials of cloud machines
        ("::1", False),
        ("::ffff:10.0.0.1", False),
        ("fe80::1%eth0", False),
        ("224.0.0.1", False),
        ("0.0.0.0", False),
    ],
)
def test_public_addresses(address: str, expected: bool):
    assert is_public(address) == expected


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("https://localhost/a.png", "no public address"),
        ("https://127.0.0.1/a.png", "no public address"),
        ("http://example.org/a.png", "not an address of a web server"),
        ("https:///a.png", "not an address of a web server"),
        ("https://user:word@example.org/a.png", "not an address of a web server"),
        ("https://example.org:port/a.png", "not an address of a web server"),
        ("https://[half/a.png", "not an address of a web server"),
        (f"https://{'a' * 70}.org/a.png", "not an address of a web server"),
    ],
)
def test_addresses_that_are_not_asked(uri: str, message: str):
    with pytest.raises(DataError, match=message) as caught:
        read_https(uri, max_bytes=100)
    assert "word" not in str(caught.value)


def test_images_of_hugging_face_are_decoded_and_shown(tmp_path: Path):
    """A column of objects with bytes; an event without an image, and one whose bytes are none."""
    rows = [
        {"t": 0.0, "image": {"bytes": _png(), "path": "a.png"}},
        {"t": 1.0, "image": {"bytes": _png(), "path": "same.png"}},
        {"t": 2.0, "image": None},
        {"t": 3.0, "image": {"bytes": b"no image", "path": None}},
    ]
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "a.parquet").write_bytes(parquet_bytes(rows))
    (tmp_path / "raw" / "b.jsonl").write_text(
        pd.DataFrame([{"t": 0, "image": f"data:image/png;base64,{_base64(_png())}"}]).to_json(
            orient="records", lines=True
        )
    )
    columns = {"time": "t", "image": "image"}
    counts = encode_shard(
        str(tmp_path / "out"),
        ["a.parquet", "b.jsonl"],
        tokenizer=train_tokenizer(["x"], size=300),
        source_uri=str(tmp_path / "raw"),
        source_kind="columns",
        columns=Columns(**columns),
        csv=CsvFormat(),
    )
    assert (counts["events_read"], counts["frames"]) == (5, 1)
    assert counts["rejected"] == {"unreadable_image": 1}
    [example] = counts["rejected_examples"].values()
    assert "base64" not in example
    sequences = mmtpp.load_sequences(tmp_path / "raw" / "a.parquet", columns=columns)
    [shown, *_] = sequences[0].images
    assert shown is not None
    assert load_image(shown, image_px=56)[0, 0].tolist() == [200, 0, 0]


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
