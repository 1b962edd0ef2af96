"""The windows that all trainings learn from, as every environment reads them.

A case is a folder with the tokenizer, the untrained model, the tokens of the windows one after the
other with their lengths, numbers of events and images. The windows are in the order of training;
the last ones are held out.
"""

import os

os.environ.setdefault("RAY_AUTH_MODE", "token")  # Ray reads it on import

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmtpp.model.tokens.vocabulary import Vocabulary, load_vocabulary

ROW_TOKENS = 2048
TOKENIZER, WINDOWS, BASE = "tokenizer.json", "windows.npz", "base"


@dataclass(frozen=True, slots=True)
class Case:
    """Windows of one kind.

    Attributes:
        vocabulary: Vocabulary of the tokens.
        ids: (tokens,) int32 token ids of each window.
        modality: (tokens,) uint8 modality of each token, of each window.
        num_events: (windows,) number of events.
        per_update: Number of windows in an update.
        num_train: Number of windows that are trained; the others are held out.
        frames: (F, 56, 56, 3) uint8 distinct images of all windows.
        image_frame: (images,) frame of each shown image, of each window.
    """

    vocabulary: Vocabulary
    ids: list[NDArray[np.int32]]
    modality: list[NDArray[np.uint8]]
    num_events: NDArray[np.int64]
    per_update: int
    num_train: int
    frames: NDArray[np.uint8]
    image_frame: list[NDArray[np.int32]]

    @property
    def has_images(self) -> bool:
        """Whether a window shows an image."""
        return len(self.frames) > 0

    @property
    def num_updates(self) -> int:
        """Number of updates of an epoch."""
        return self.num_train // self.per_update


def load_case(folder: str) -> Case:
    """Read a case that ``run`` wrote."""
    with np.load(Path(folder) / WINDOWS) as arrays:
        ends = np.cumsum(arrays["lengths"])[:-1]
        image_ends = np.cumsum(arrays["num_images"])[:-1]
        return Case(
            vocabulary=load_vocabulary(Path(folder)),
            ids=np.split(arrays["ids"], ends),
            modality=np.split(arrays["modality"], ends),
            num_events=arrays["num_events"],
            per_update=int(arrays["per_update"]),
            num_train=int(arrays["num_train"]),
            frames=arrays["frames"],
            image_frame=np.split(arrays["image_frame"], image_ends),
        )
