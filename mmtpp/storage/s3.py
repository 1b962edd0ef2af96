"""S3: s3fs writes, lists, copies and deletes; obstore reads.

Both use the credentials, region and endpoint that botocore finds: environment variables, profiles,
web identity, single sign-on, or the role of the machine. obstore reads small files with a fraction
of the time and CPU of s3fs (``make bench-prepare`` prints both), in one request.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cached_property
from os import environ
from typing import Any

import botocore.session
import obstore
import pyarrow.fs as pafs
import s3fs
from obstore.store import S3Store

from mmtpp.storage.remote import CONNECT_S, SILENCE_S, RemoteFiles, check_size

S3_ATTEMPTS = 8
RETRY_S = 60.0  # of one request with all its attempts
DELETED_AT_ONCE = 1000  # largest number of keys in a page of a listing and in a request to delete
# botocore renews temporary credentials at least ten minutes before they expire
CREDENTIALS_S = 300.0
PRECONDITION_FAILED = 412  # status of HTTP


class S3Files(RemoteFiles):
    """The objects of one bucket."""

    def __init__(self, bucket: str, rebuild: tuple[Callable, tuple]) -> None:
        """Use a bucket; no request is sent.

        Args:
            bucket: Name of the bucket.
            rebuild: Function and arguments that make these files in another process.
        """
        fs = s3fs.S3FileSystem(
            client_kwargs={"region_name": _region()},
            config_kwargs={
                "retries": {"mode": "standard", "total_max_attempts": S3_ATTEMPTS},
                "connect_timeout": CONNECT_S,
                "read_timeout": SILENCE_S,
                # Many servers of other makers refuse the trailing checksums that are botocore's
                # default; without them the signature covers the content.
                "request_checksum_calculation": environ.get(
                    "AWS_REQUEST_CHECKSUM_CALCULATION", "when_required"
                ).lower(),
            },
            use_listings_cache=False,
            skip_instance_cache=True,
        )
        fs.retries = 1  # botocore retries; its attempts are not multiplied
        super().__init__(fs, rebuild)
        self._bucket = bucket

    @cached_property
    def _store(self) -> S3Store:
        session = botocore.session.get_session()
        _credentials(session)  # before the first request
        client = session.create_client("s3", region_name=_region())
        endpoint, region = client.meta.endpoint_url, client.meta.region_name
        if endpoint.partition("?")[0].rstrip("/").endswith((".amazonaws.com", ".amazonaws.com.cn")):
            region = pafs.resolve_s3_region(self._bucket)  # not that of this machine
            client = session.create_client("s3", region_name=region)
            endpoint = client.meta.endpoint_url
        return S3Store(
            self._bucket,
            endpoint=endpoint,
            region=region,
            credential_provider=_CredentialsOfBotocore(session),
            client_options={
                "allow_http": endpoint.startswith("http://"),
                "connect_timeout": timedelta(seconds=CONNECT_S),
                "read_timeout": timedelta(seconds=SILENCE_S),
                "timeout": timedelta(hours=1),  # a slow network may read a large file
            },
            retry_config={
                "max_retries": S3_ATTEMPTS - 1,
                "retry_timeout": timedelta(seconds=RETRY_S),
            },
        )

    def read(self, path: str, *, max_bytes: int | None) -> bytes:
        """Read a whole object in one request; refuse it, unread, over ``max_bytes``."""
        key = self._key(path)
        if not _has_plain_name(key):
            return super().read(path, max_bytes=max_bytes)
        answer = obstore.get(self._store, key)
        check_size(answer.meta["size"], max_bytes)
        return answer.bytes().to_bytes()

    def read_range(self, path: str, start: int, end: int) -> bytes:
        """Read the bytes from ``start`` to ``end``, exclusive, in one request."""
        key = self._key(path)
        if not _has_plain_name(key):
            return super().read_range(path, start, end)
        return obstore.get_range(self._store, key, start=start, end=end).to_bytes()

    def size(self, path: str) -> int:
        """Size of an object in bytes."""
        key = self._key(path)
        if not _has_plain_name(key):
            return super().size(path)
        return obstore.head(self._store, key)["size"]

    def create(self, path: str, data: bytes) -> bool:
        """Write an object unless it exists; returns whether it was written."""
        try:
            return super().create(path, data)
        except OSError as error:
            answer = getattr(error.__cause__, "response", {})
            if answer.get("ResponseMetadata", {}).get("HTTPStatusCode") == PRECONDITION_FAILED:
                return False
            raise

    def delete_dir_contents(self, path: str, missing_dir_ok: bool) -> None:
        """Delete all objects below a path, also the empty ones that stand for folders."""
        folder = self._key(path).rstrip("/")
        prefix, found = f"{folder}/" if folder else "", False
        while True:
            page = self.fs.call_s3(
                "list_objects_v2", Bucket=self._bucket, Prefix=prefix, MaxKeys=DELETED_AT_ONCE
            )
            keys = [{"Key": entry["Key"]} for entry in page.get("Contents", [])]
            if not keys:
                break
            found = True
            self._delete(keys)
        if not found and not missing_dir_ok:
            raise FileNotFoundError(path)

    def _delete(self, keys: list[dict[str, str]]) -> None:
        answer = self.fs.call_s3(
            "delete_objects", Bucket=self._bucket, Delete={"Objects": keys, "Quiet": True}
        )
        for failure in answer.get("Errors", []):
            raise OSError(f"{failure.get('Code')}: {failure.get('Message')} ({failure.get('Key')})")

    def has_bucket(self, bucket: str) -> bool:
        """Whether a bucket exists."""
        try:
            self.fs.call_s3("head_bucket", Bucket=bucket)
        except FileNotFoundError:
            return False
        return True

    def _key(self, path: str) -> str:
        return path.partition("/")[2]


class _CredentialsOfBotocore:
    """Gives obstore the credentials that botocore finds and renews."""

    def __init__(self, session: botocore.session.Session) -> None:
        self._session = session

    def __call__(self) -> Any:
        frozen = _credentials(self._session).get_frozen_credentials()
        expires = datetime.now(UTC) + timedelta(seconds=CREDENTIALS_S)
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": expires if frozen.token else None,
        }


def _credentials(session: botocore.session.Session) -> Any:
    credentials = session.get_credentials()
    if credentials is None:
        raise PermissionError("no AWS credentials")
    return credentials


def _region() -> str | None:
    """Region of the environment; None for that of the profile."""
    return environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or None


def _has_plain_name(key: str) -> bool:
    """Whether obstore can name an object: no part of its key is empty, "." or ".."."""
    return not {"", ".", ".."}.intersection(key.split("/"))
