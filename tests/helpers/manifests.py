"""The manifest of a store that a test has encoded by hand, for ``build_sample_settings``."""

from types import SimpleNamespace
from typing import cast

from mmtpp.storage.manifest import Manifest


def sample_manifest(**changes: object) -> Manifest:
    """A stand-in whose data lies in the folder of the store; its times are whole seconds.

    Args:
        changes: Other values of its attributes, and further ones.
    """
    values: dict[str, object] = {
        "data_folder": "",
        "fingerprint": "x" * 64,
        "image_px": 56,
        "tick": 1.0,
        "seconds_per_unit": 1.0,
        "times_are_dates": False,
    }
    return cast(Manifest, SimpleNamespace(**values | changes))
