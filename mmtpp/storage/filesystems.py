"""The filesystem of a URI: local, or any filesystem of fsspec in the form that Ray expects.

| scheme | package | extra |
|---|---|---|
| none, ``file://`` | pyarrow | |
| ``s3://`` | s3fs; obstore reads | ``aws`` |
| ``gs://`` | gcsfs | ``gcp`` |
| ``az://``, ``abfs://`` | adlfs | ``azure`` |
| ``hf://datasets/OWNER/NAME@COMMIT`` | huggingface_hub | |
| ``memory://`` | fsspec; one process, for tests | |

Any other scheme of fsspec works where its package is installed. Each client finds its credentials
itself, in the standard variables and files of its cloud or from the machine's role.
"""

import os
import re
from functools import lru_cache
from pathlib import Path

import fsspec
import pyarrow.fs as pafs

from mmtpp.core.errors import StorageError
from mmtpp.storage.client_errors import ACCESS_CAUSES, first_line_without_queries
from mmtpp.storage.remote import RemoteFiles

EXTRAS = {
    "s3": "aws",
    "gs": "gcp",
    "gcs": "gcp",
    "az": "azure",
    "abfs": "azure",
    "abfss": "azure",
}
"""Extra of the schemes whose package is not in the plain installation."""
# prefixes of the variables that choose endpoint and credentials
_VARIABLES = (b"AWS_", b"AZURE_", b"GOOGLE_", b"STORAGE_EMULATOR_", b"HF_", b"FSSPEC_")
# Texts at which clients cut a path, because a version may follow: another file would be read.
_VERSIONS = {"s3": "?versionId=", "az": "?", "abfs": "?", "abfss": "?"}
# The hub gives files no times, so a changed file of a branch would look unchanged.
_COMMITTED = re.compile(r"datasets/[^/@]+/[^/@]+@[0-9a-f]{40}(/|$)")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
# http could reach private addresses and follow redirects; the others hold no files of a server
_REFUSED = frozenset({"http", "https", "data", "local", "blockcache", "filecache", "simplecache"})


def is_remote(uri: str) -> bool:
    """Whether a URI names another kind of storage than local files."""
    scheme, separator, _ = uri.partition("://")
    return bool(separator) and scheme != "file"


def filesystem_of(uri: str) -> tuple[pafs.FileSystem, str]:
    """Return the filesystem of a URI and the path within it.

    The filesystem may be sent to another process, which finds its own credentials.

    Raises:
        StorageError: The URI is empty, holds a password, or its scheme is unknown or lacks its
            package; or it names a data set of the hub without its commit.
    """
    if not uri:
        raise StorageError("the URI is empty")
    scheme, separator, path = uri.partition("://")
    if not separator:
        return pafs.LocalFileSystem(), str(Path(uri).expanduser().absolute())
    if scheme == "file":
        return pafs.LocalFileSystem(), path
    authority = path.partition("/")[0]
    if ":" in authority.rpartition("@")[0]:
        raise StorageError(
            f"a {scheme}:// URI holds a password",
            cause="set credentials in the standard variables of the cloud",
        )
    if (ending := _VERSIONS.get(scheme, "\0")) in path:
        raise StorageError(
            f"{ending!r} in the path of a {scheme}:// URI",
            where=uri,
            cause="the client would cut the path there; rename the file",
        )
    if scheme == "hf" and authority == "datasets" and not _COMMITTED.match(path):
        raise StorageError(
            "the URI of a data set of the hub needs a commit",
            where=uri,
            cause="the files of a branch may change while they are read; copy the commit from the "
            "page of the data set and write hf://datasets/OWNER/NAME@COMMIT, 40 hexadecimal digits",
        )
    files = remote_files(scheme, authority)
    return pafs.PyFileSystem(files), files.path_of(uri)


def remote_files(scheme: str, authority: str) -> RemoteFiles:
    """Return the files of a bucket, container or server; clients are kept for later calls.

    Args:
        scheme: Scheme of its URIs, without "://".
        authority: Name of the bucket, container or server.

    Raises:
        StorageError: The scheme is unknown, or its package is not installed.
    """
    # as bytes: this runs for every file, and decoding the environment takes longer than a read
    names = sorted(name for name in os.environb if name.startswith(_VARIABLES))
    settings = tuple((name, os.environb[name]) for name in names)
    return _build(scheme, authority, settings, os.getpid())


@lru_cache(maxsize=8)
def _build(
    scheme: str, authority: str, settings: tuple[tuple[bytes, bytes], ...], pid: int
) -> RemoteFiles:
    """Build the client of a bucket for the variables of this process.

    Args:
        scheme: Scheme of its URIs.
        authority: Name of the bucket.
        settings: Variables that choose endpoint and credentials.
        pid: This process; connections do not survive a fork.
    """
    del settings, pid  # they are keys of the cache, and the clients read the variables themselves
    rebuild = (remote_files, (scheme, authority))
    try:
        if scheme == "s3":
            from mmtpp.storage.s3 import S3Files  # the packages of the extra

            return S3Files(authority, rebuild)
        client, files = _classes(scheme)
        arguments = client._get_kwargs_from_urls(f"{scheme}://{authority}")
        # other processes write too, so a listing is never kept
        fs = client(
            **arguments,
            **files.client_settings(),
            use_listings_cache=False,
            skip_instance_cache=True,
        )
    except ImportError as error:
        raise _missing_package(scheme, error) from error
    # missing settings, and clients that connect at once
    except (OSError, TypeError, ValueError) as error:
        raise StorageError(
            f"cannot use {scheme}://: {first_line_without_queries(error)}",
            where=f"{scheme}://{authority}",
            cause=ACCESS_CAUSES.get(scheme, "see the message"),
        ) from error
    return files(fs, rebuild)


def _classes(scheme: str) -> tuple[type[fsspec.AbstractFileSystem], type[RemoteFiles]]:
    """The client of a scheme, and the class of its files."""
    known = fsspec.available_protocols()
    if not _SCHEME.fullmatch(scheme) or scheme in _REFUSED or scheme not in known:
        raise StorageError(
            f"the scheme {scheme[:50]}:// is not supported",
            cause="use a local path, s3://, gs://, az://, abfs://, hf:// or another scheme of "
            "fsspec",
        )
    if scheme in ("gs", "gcs"):
        from gcsfs.core import GCSFileSystem  # without the requests for kinds of buckets by gRPC

        from mmtpp.storage.google import GoogleFiles

        return GCSFileSystem, GoogleFiles
    if scheme in ("az", "abfs", "abfss"):
        from adlfs import AzureBlobFileSystem

        from mmtpp.storage.azure import AzureFiles

        return AzureBlobFileSystem, AzureFiles
    return fsspec.get_filesystem_class(scheme), RemoteFiles


def _missing_package(scheme: str, error: ImportError) -> StorageError:
    extra = EXTRAS.get(scheme, "")
    return StorageError(
        f"{scheme}:// needs a package that is not installed: {first_line_without_queries(error)}",
        cause=f"pip install 'mmtpp[{extra}]'" if extra else "install the package on every machine",
    )
