"""Errors of all storage clients as ``StorageError``, with the URI and the likely cause."""

import errno
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa

from mmtpp.core.errors import MissingFileError, StorageError

# Base classes of the errors that clients raise besides OSError: module and name. A client that is
# not imported raises no errors, so none is imported here.
_CLIENT_ERRORS = (
    ("botocore.exceptions", "BotoCoreError"),
    ("botocore.exceptions", "ClientError"),
    ("obstore.exceptions", "BaseError"),
    ("azure.core.exceptions", "AzureError"),
    ("gcsfs.retry", "HttpError"),
    ("google.auth.exceptions", "GoogleAuthError"),
    ("aiohttp", "ClientError"),
    ("huggingface_hub.errors", "HfHubHTTPError"),
    ("httpx2", "HTTPError"),
)
_NO_FILE = (errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG)
_S3_ACCESS = (
    "wrong or missing credentials; check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE "
    "or the instance profile, and the bucket policy"
)
_GCS_ACCESS = (
    "wrong or missing credentials; check GOOGLE_APPLICATION_CREDENTIALS or the service account of "
    "the machine, and the roles on the bucket"
)
_AZURE_ACCESS = (
    "wrong or missing credentials; check AZURE_STORAGE_CONNECTION_STRING, or "
    "AZURE_STORAGE_ACCOUNT_NAME with AZURE_STORAGE_ACCOUNT_KEY, AZURE_STORAGE_SAS_TOKEN or the "
    "managed identity, and the roles on the container"
)
ACCESS_CAUSES = {
    "s3": _S3_ACCESS,
    "gs": _GCS_ACCESS,
    "gcs": _GCS_ACCESS,
    "az": _AZURE_ACCESS,
    "abfs": _AZURE_ACCESS,
    "abfss": _AZURE_ACCESS,
    "hf": "wrong or missing token; check HF_TOKEN",
}
"""Likely cause of a refused request, by scheme."""
_ENDPOINTS = {"s3": "AWS_ENDPOINT_URL", "hf": "HF_ENDPOINT"}
_REFUSED = re.compile(
    r"ACCESS_DENIED|AccessDenied|INVALID_ACCESS_KEY|InvalidAccessKeyId|SignatureDoesNotMatch|"
    r"AuthenticationFailed|AuthorizationFailure|\b40[13]\b|Unable to locate credentials|"
    r"NoCredentials|Forbidden|PermissionDenied|Unauthenticated|lacked valid authentication"
)
_NO_BUCKET = re.compile(r"NO_SUCH_BUCKET|NoSuchBucket|ContainerNotFound|bucket does not exist")
_NO_ANSWER = re.compile(
    r"NETWORK_CONNECTION|curlCode|Could not connect|Cannot connect|[Cc]onnection (was )?"
    r"(closed|refused|reset)|timed? ?out|error sending request|Connect call failed"
)


def client_errors() -> tuple[type[BaseException], ...]:
    """Base classes of the errors of the clients that this process has imported."""
    return tuple(
        getattr(sys.modules[module], name)
        for module, name in _CLIENT_ERRORS
        if module in sys.modules
    )


@contextmanager
def storage_errors(uri: str, action: str) -> Iterator[None]:
    """Convert errors of filesystems to a ``StorageError`` with the URI and the likely cause.

    Args:
        uri: URI that is read or written.
        action: Action that failed, for the message "cannot ACTION".
    """
    try:
        yield
    except FileNotFoundError as error:
        raise MissingFileError(f"cannot {action}: it does not exist", where=uri) from error
    except PermissionError as error:
        cause = ACCESS_CAUSES.get(_scheme(uri), "the permissions of the file or its folder")
        raise StorageError(f"cannot {action}: access denied", where=uri, cause=cause) from error
    except pa.ArrowException as error:
        raise StorageError(
            f"cannot {action}: {first_line_without_queries(error)}", where=uri
        ) from error
    except OSError as error:
        if error.errno in _NO_FILE or str(error).endswith("is a directory"):
            raise MissingFileError(f"cannot {action}: it is not a file", where=uri) from error
        raise _storage_error(error, uri, action) from error
    except client_errors() as error:
        raise _storage_error(error, uri, action) from error


def _storage_error(error: BaseException, uri: str, action: str) -> StorageError:
    message, scheme = f"{type(error).__name__} {error}", _scheme(uri)
    if _REFUSED.search(message):
        cause = ACCESS_CAUSES.get(scheme, "wrong or missing credentials")
    elif _NO_BUCKET.search(message):
        cause = "the bucket does not exist; create it or correct the URI"
    elif isinstance(error, ConnectionError | TimeoutError) or _NO_ANSWER.search(message):
        endpoint = _ENDPOINTS.get(scheme, "the address of the endpoint")
        cause = f"the endpoint does not answer; check the network and {endpoint}"
    else:
        cause = "see the message"
    return StorageError(
        f"cannot {action}: {first_line_without_queries(error)}", where=uri, cause=cause
    )


def _scheme(uri: str) -> str:
    """Scheme of the URI of a remote file; of a copy "SOURCE -> TARGET", that of a remote side."""
    return next(iter(re.findall(r"([a-z][a-z0-9+.-]*)://", uri)), "")


def first_line_without_queries(error: BaseException) -> str:
    """First line of an error's message, without the queries of URLs, which may hold signatures."""
    line = (str(error).splitlines() or [type(error).__name__])[0][:500]
    return re.sub(r"(https?://[^\s?'\"]+)\?[^\s'\"]*", r"\1", line)
