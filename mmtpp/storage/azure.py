"""Azure Blob Storage, through adlfs."""

from typing import Any

from adlfs import AzureBlobFileSystem
from azure.core.exceptions import ResourceNotFoundError
from fsspec.asyn import sync

from mmtpp.storage.remote import CONNECT_S, SILENCE_S, RemoteFiles


class AzureFiles(RemoteFiles):
    """The blobs of one container."""

    fs: AzureBlobFileSystem

    @staticmethod
    def client_settings() -> dict[str, Any]:
        """Times of a request that reads or writes a file; Azure's client tries it four times.

        adlfs passes no times to listings, deletions and copies: they end after 20 s without a
        connection and 60 s of silence.
        """
        return {"connection_timeout": CONNECT_S, "read_timeout": SILENCE_S}

    def has_bucket(self, bucket: str) -> bool:
        """Whether a container exists; adlfs itself assumes so when the server refuses to answer."""
        return bool(sync(self.fs.loop, self._has_container, bucket))

    async def _has_container(self, name: str) -> bool:
        async with self.fs.service_client.get_container_client(container=name) as container:
            try:
                await container.get_container_properties()
            except ResourceNotFoundError:
                return False
        return True
