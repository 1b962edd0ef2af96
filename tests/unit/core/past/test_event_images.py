"""Images of events: shrunk by area, joined, cut, and pickled without unused images."""

import pickle

import numpy as np
import pytest

from mmtpp.core.past.event_images import IMAGE_SIDE, IMAGE_VALUES, NO_IMAGE, EventImages, shrink
from mmtpp.core.past.past_events import PastEvents


def _images(*index: int) -> EventImages:
    pixels = np.repeat(np.arange(4, dtype=np.uint8)[:, None], IMAGE_VALUES, axis=1)
    return EventImages.from_sequence(pixels, np.array(index, dtype=np.int32))


def _shown(images: EventImages) -> list[int]:
    """The value of each event's image, which is the same in all its pixels."""
    return images.values[:, 0, 7].tolist()


def _shown_before(images: EventImages) -> list[int]:
    """The value of the image of the event before each event."""
    return images.values[:, 1, 7].tolist()


def test_a_small_pixel_is_the_mean_of_its_area():
    image = np.zeros((2 * IMAGE_SIDE, 2 * IMAGE_SIDE, 3), dtype=np.uint8)
    image[4:6, 8:10, 1] = [[10, 20], [30, 42]]
    small = shrink(image[None]).reshape(IMAGE_SIDE, IMAGE_SIDE, 3)
    assert small[2, 4].tolist() == [0, 26, 0]  # 25.5, rounded to even
    small[2, 4] = 0
    assert not small.any()


def test_pixels_on_an_edge_are_shared():
    # 1.5 pixels become one: the second pixel is half in the first small one
    side = IMAGE_SIDE * 3 // 2
    image = np.zeros((side, side, 3), dtype=np.uint8)
    image[:, 1] = 90
    small = shrink(image[None]).reshape(IMAGE_SIDE, IMAGE_SIDE, 3)
    assert small[5, :3, 0].tolist() == [30, 30, 0]


@pytest.mark.parametrize("side", [7, 24, 56, 224])
def test_a_plain_image_keeps_its_colour(side: int):
    colour = np.array([1, 128, 255], dtype=np.uint8)
    small = shrink(np.broadcast_to(colour, (2, side, side, 3)))
    assert small.shape == (2, IMAGE_VALUES)
    assert (small.reshape(-1, 3) == colour).all()


def test_an_event_without_image_has_no_values():
    images = _images(2, NO_IMAGE, 0)
    assert _shown(images) == [2, NO_IMAGE, 0]
    assert (images.values[1, 0] == NO_IMAGE).all()
    assert _shown(EventImages.none(2)) == [NO_IMAGE, NO_IMAGE]


def test_events_show_what_was_before():
    images = _images(2, NO_IMAGE, 0, 1)
    assert _shown_before(images) == [NO_IMAGE, 2, NO_IMAGE, 0]
    # also where the events before are cut off
    assert _shown_before(images.take(np.array([3, 1]))) == [0, 2]
    # the first event of a sequence shows nothing of the sequence before
    joined = EventImages.join([images, _images(3, 1)])
    assert _shown_before(joined) == [NO_IMAGE, 2, NO_IMAGE, 0, NO_IMAGE, 3]


def test_events_join_with_one_table_or_with_several():
    first = _images(2, NO_IMAGE)
    same = EventImages.from_sequence(first.pixels, np.array([3], dtype=np.int32))
    joined = EventImages.join([first, same])
    assert joined.pixels is first.pixels
    assert _shown(joined) == [2, NO_IMAGE, 3]
    assert _shown(EventImages.join([first, _images(1, NO_IMAGE), same])) == [
        *(2, NO_IMAGE),
        *(1, NO_IMAGE),
        3,
    ]


@pytest.mark.parametrize("index", [(3, NO_IMAGE, 1, 3), (1, 1), (NO_IMAGE,), ()])
def test_a_pickle_has_only_images_of_its_events(index: tuple[int, ...]):
    images = _images(*index)
    loaded = pickle.loads(pickle.dumps(images))  # noqa: S301
    assert loaded.values.tolist() == images.values.tolist()
    assert len(loaded.pixels) == len({place for place in index if place != NO_IMAGE})


def test_past_events_have_the_images_of_all_or_of_none():
    def past(images: EventImages | None) -> PastEvents:
        none = np.zeros(2, dtype=np.int64)
        is_first = np.array([True, False])
        return PastEvents(np.arange(2.0), none, none, is_first, images=images)

    joined = PastEvents.join([past(_images(0, 1)), past(_images(NO_IMAGE, 2))])
    assert joined.images is not None
    assert _shown(joined.images) == [0, 1, NO_IMAGE, 2]
    part = joined.slice(1, 3).images
    assert part is not None
    assert _shown(part) == [1, NO_IMAGE]
    assert PastEvents.join([past(None), past(None)]).images is None
    with pytest.raises(ValueError, match="images of some"):
        PastEvents.join([past(None), past(_images(0, 1))])
