"""Google Cloud Storage, through gcsfs."""

from typing import Any

from aiohttp import ClientTimeout
from gcsfs.core import GCSFileSystem

from mmtpp.storage.remote import CONNECT_S, SILENCE_S, RemoteFiles


class GoogleFiles(RemoteFiles):
    """The objects of one bucket."""

    fs: GCSFileSystem

    @staticmethod
    def client_settings() -> dict[str, Any]:
        """Times of a request; gcsfs tries it again, six times in all."""
        return {"requests_timeout": ClientTimeout(sock_connect=CONNECT_S, sock_read=SILENCE_S)}

    def has_bucket(self, bucket: str) -> bool:
        """Whether a bucket exists, by a listing: the usual roles may not see the bucket itself."""
        try:
            self.fs.call("GET", "b/{}/o", bucket, maxResults=1, json_out=True)
        except FileNotFoundError:
            return False
        return True
