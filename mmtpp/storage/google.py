"""Google Cloud Storage, through gcsfs."""

from gcsfs.core import GCSFileSystem

from mmtpp.storage.remote import RemoteFiles


class GoogleFiles(RemoteFiles):
    """The objects of one bucket."""

    fs: GCSFileSystem

    def has_bucket(self, bucket: str) -> bool:
        """Whether a bucket exists, by a listing: the usual roles may not see the bucket itself."""
        try:
            self.fs.call("GET", "b/{}/o", bucket, maxResults=1, json_out=True)
        except FileNotFoundError:
            return False
        return True
