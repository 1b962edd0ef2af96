"""Servers of Azure Blob Storage and Google Cloud Storage on this machine, and their variables."""

import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError

import pytest

CONTAINER = "mmtpp"
# the account of Azurite, which its documentation publishes
AZURITE_KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)


@contextmanager
def azurite(folder: Path) -> Iterator[dict[str, str]]:
    """Run Azurite with an empty container; yield the environment variables of its clients.

    Args:
        folder: Folder for the files of the server.
    """
    binary = shutil.which("azurite-blob")
    if binary is None:
        pytest.skip("no Azurite on this machine: npm install --global azurite")
    pytest.importorskip("adlfs", reason="pip install 'mmtpp[azure]'")
    from azure.storage.blob import BlobServiceClient

    port = _free_port()
    # the client may be newer than the server
    options = ["--silent", "--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry"]
    address = f"http://127.0.0.1:{port}"
    command = [binary, "--blobHost", "127.0.0.1", "--blobPort", str(port), *options]
    with _server(command, folder, address):
        connection = (
            "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;"
            f"AccountKey={AZURITE_KEY};BlobEndpoint={address}/devstoreaccount1;"
        )
        BlobServiceClient.from_connection_string(connection).create_container(CONTAINER)
        yield {"AZURE_STORAGE_CONNECTION_STRING": connection}


@contextmanager
def google_emulator(folder: Path) -> Iterator[dict[str, str]]:
    """Run an emulator of Google Cloud Storage with a bucket; yield the variables of its clients.

    Args:
        folder: Folder in which the server runs.
    """
    pytest.importorskip("gcp_storage_emulator", reason="pip install gcp-storage-emulator")
    pytest.importorskip("gcsfs", reason="pip install 'mmtpp[gcp]'")
    port = _free_port()
    command = [sys.executable, "-m", "gcp_storage_emulator", "start", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--in-memory", "--default-bucket", CONTAINER]
    address = f"http://127.0.0.1:{port}"
    with _server(command, folder, address):
        yield {"STORAGE_EMULATOR_HOST": address}


@contextmanager
def _server(command: list[str], folder: Path, address: str) -> Iterator[None]:
    """Run a server until the end of the context; it answers when the context begins."""
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=folder, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
        )
    try:
        _wait(process, folder / "server.log", address)
        yield
    finally:
        process.terminate()
        process.wait(timeout=20)


def _wait(process: subprocess.Popen, log: Path, address: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(address, timeout=5).close()
        except HTTPError:
            return  # an error is an answer
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise AssertionError(f"the server does not answer: {log.read_text()}")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
