"""The images that a window of a sequence in memory shows."""

import numpy as np
from numpy.typing import NDArray

from mmtpp.core.events import EventSequence
from mmtpp.data.encode.tokenised_events import distinct_images
from mmtpp.data.store.images import load_image


def load_shown_images(
    sequence: EventSequence, images: NDArray[np.int32], *, image_px: int
) -> NDArray[np.uint8]:
    """Load the distinct images of a window, in the order that ``PackedRow.from_window`` expects.

    Args:
        sequence: The events of ``tokenise_sequences``, with the names of their images.
        images: Images of the window, ``images_of``.
        image_px: Side of the images in pixels.

    Returns:
        (F, S, S, 3) RGB.

    Raises:
        DataError: An image is invalid.
    """
    contents = distinct_images(sequence)
    pixels = [
        load_image(contents[image], image_px=image_px) for image in np.unique(images).tolist()
    ]
    return np.array(pixels, dtype=np.uint8).reshape(-1, image_px, image_px, 3)
