"""Stand-ins for packages that a peer imports and that a training on text never uses.

PyPI has no CPU builds of torchvision and torchaudio that match that of torch.
"""

import importlib
import sys
import types
from collections.abc import Iterable
from typing import Any


def import_with_stand_ins(module: str, names: Iterable[str]) -> Any:
    """Import a module while empty modules stand in for absent ones.

    Args:
        module: Module to import.
        names: Absent modules and the objects imported from them, such as ``torchvision`` or
            ``torchvision.datasets:VisionDataset``.
    """
    importlib.import_module("transformers")  # looks for the absent packages once
    stand_ins: dict[str, types.ModuleType] = {}
    for name in names:
        path, _, imported = name.partition(":")
        stand_in = stand_ins.setdefault(path, types.ModuleType(path))
        if imported:
            setattr(stand_in, imported, object)
    sys.modules.update(stand_ins)
    try:
        return importlib.import_module(module)
    finally:
        for path in stand_ins:
            del sys.modules[path]
