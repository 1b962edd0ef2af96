"""Images: decode and resize files of limited size, and build the vision tower's pixel values."""

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from mmtpp.core.errors import DataError

PATCH_PX = 14
MERGE = 2
CELL_PX = PATCH_PX * MERGE  # one language-model token covers 28 x 28 pixels
TEMPORAL_PATCH = 2
FORMATS = ("PNG", "JPEG", "WEBP")
# CLIP statistics, as in the preprocessor_config.json of Qwen2.5-VL
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, slots=True)
class ImageFormat:
    """How a vision tower takes images.

    Attributes:
        patch_px: Side of a patch, in pixels.
        merge: Number of patches along one side of a merged cell, which is one token.
        mean, std: Mean and standard deviation of red, green and blue, 0 to 1.
    """

    patch_px: int
    merge: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def cell_px(self) -> int:
        """Side of the square that one token covers, in pixels."""
        return self.patch_px * self.merge


QWEN2_5_VL_IMAGES = ImageFormat(PATCH_PX, MERGE, MEAN, STD)


def image_side(image_px: int) -> int:
    """Number of merged cells along one side of a square image, the same for every family."""
    return image_px // CELL_PX


def fit_frames(frames: NDArray[np.uint8], image_format: ImageFormat) -> NDArray[np.uint8]:
    """Resize frames, so that they have the same number of cells in every family.

    Stored frames have sides that are multiples of 28 pixels. A family whose cells are larger sees
    them enlarged.

    Args:
        frames: (F, S, S, 3) uint8 RGB.
        image_format: Format of the model's images.
    """
    side_px = frames.shape[1]
    fitting_px = image_side(side_px) * image_format.cell_px
    if fitting_px == side_px:
        return frames
    size = (fitting_px, fitting_px)
    fitting = np.empty((len(frames), *size, 3), dtype=np.uint8)
    for index, frame in enumerate(frames):
        resized = Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC)
        fitting[index] = np.asarray(resized)
    return fitting


def decode_image(data: bytes, *, image_px: int, max_pixels: int) -> bytes:
    """Decode an image file and resize it to a square.

    Args:
        data: Content of a PNG, JPEG or WebP file.
        image_px: Side of the result, in pixels.
        max_pixels: Maximum number of pixels in the file. The header shows the number, so a larger
            image is refused before it is decoded.

    Returns:
        ``image_px * image_px * 3`` bytes, RGB, row by row.

    Raises:
        DataError: The content is not a PNG, JPEG or WebP image, is damaged, or is too large.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise DataError(
                    f"image of {width} x {height} pixels is too large",
                    setting=f"source.max_image_pixels = {max_pixels}",
                )
            image.draft("RGB", (image_px, image_px))  # JPEG decodes at a fraction of its size
            rgb = image.convert("RGB").resize((image_px, image_px), Image.Resampling.BICUBIC)
    except UnidentifiedImageError as error:  # Pillow's message has the address of the file object
        raise DataError(
            "unreadable image: not a PNG, JPEG or WebP image, or its header is damaged"
        ) from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"unreadable image: {error}") from error
    return rgb.tobytes()


def encode_image(pixels: NDArray[np.uint8], *, image_px: int, file_format: str) -> bytes:
    """Encode a frame as an image file.

    Args:
        pixels: ``image_px * image_px * 3`` values, RGB, row by row.
        image_px: Side of the frame, in pixels.
        file_format: Format of the file: ``JPEG`` (small) or ``PNG`` (lossless).
    """
    file = io.BytesIO()
    image = Image.fromarray(pixels.reshape(image_px, image_px, 3))
    image.save(file, format=file_format, quality=80)
    return file.getvalue()


def pixel_values(
    frames: NDArray[np.uint8], image_format: ImageFormat = QWEN2_5_VL_IMAGES
) -> NDArray[np.float32]:
    """Normalise frames and cut them into patches, in the order that the vision tower expects.

    Args:
        frames: (F, S, S, 3) uint8 RGB, S a multiple of the side of a cell.
        image_format: Patches and normalisation of the tower, P pixels a side.

    Returns:
        (F * (S / P)^2, 6 * P^2) float32: 3 channels x 2 equal time steps x P x P pixels. The four
        patches of a merged 2 x 2 cell are adjacent.

    Source: ``Qwen2VLImageProcessor`` of transformers; equality in tests/parity/test_model.py.
    """
    patch_px, merge = image_format.patch_px, image_format.merge
    num_frames, side_px = frames.shape[0], frames.shape[1]
    cells = side_px // image_format.cell_px
    mean, std = (np.array(values, np.float32) for values in (image_format.mean, image_format.std))
    pixels = (frames.astype(np.float32) / 255 - mean) / std
    patches = pixels.transpose(0, 3, 1, 2).reshape(
        num_frames, 3, cells, merge, patch_px, cells, merge, patch_px
    )
    patches = patches.transpose(0, 2, 5, 3, 6, 1, 4, 7)[:, :, :, :, :, :, None]
    shape = (*patches.shape[:6], TEMPORAL_PATCH, *patches.shape[7:])
    return (
        np.broadcast_to(patches, shape)
        .reshape(num_frames * (side_px // patch_px) ** 2, -1)
        .astype(np.float32, copy=False)
    )
