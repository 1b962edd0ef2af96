"""Blocks of work: grouped sequences, and errors of the tasks that compute them."""

import pytest
from ray.exceptions import RayTaskError

from mmtpp.core.errors import DataError
from mmtpp.runtime.block_tasks import group_sequences
from mmtpp.runtime.task_errors import own_errors


@pytest.mark.parametrize(
    ("num_events", "expected"),
    [
        ([3, 3, 3, 3], [["0", "1", "2"], ["3"]]),  # events end at 3, 6, 9 and 12
        ([25, 1, 1], [["0", "1", "2"]]),  # a long sequence is not cut
        ([10, 10], [["0"], ["1"]]),
        ([], []),
    ],
)
def test_sequences_are_grouped_whole_and_in_order(num_events: list[int], expected: list[list[str]]):
    names = [str(index) for index in range(len(num_events))]
    assert group_sequences(names, num_events, events_per_block=10) == expected


def test_an_own_error_of_a_task_is_raised_as_itself():
    own = DataError("no such type", where="file f")
    with pytest.raises(DataError) as raised, own_errors():
        raise RayTaskError("f", "Traceback …", own).as_instanceof_cause()
    assert raised.value is own


def test_other_errors_of_a_task_keep_their_traceback():
    with pytest.raises(RayTaskError, match="in line 7"), own_errors():
        raise RayTaskError("f", "Traceback: in line 7", ValueError("wrong"))
