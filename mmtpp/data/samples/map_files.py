"""Work on every file of a store, in this process or, where there are many files, in Ray Data."""

from collections.abc import Callable, Mapping

import pyarrow as pa
import ray

FILES_PER_TASK = 4
FILES_HERE = 64  # about 6 million events, done sooner than Ray's processes start


def map_files(
    function: Callable[..., pa.Table],
    files: list[str],
    arguments: Mapping[str, object],
    *,
    machine_labels: tuple[tuple[str, str], ...],
) -> list[pa.Table]:
    """Call a function with tables of file names, and collect its tables.

    Args:
        function: Takes a table with the column ``file``, and ``arguments``.
        files: Names of all files.
        arguments: Keyword arguments of the function.
        machine_labels: Ray labels of the machines that Ray Data may use; empty for any machine.
    """
    if len(files) <= FILES_HERE:
        return [function(pa.table({"file": files}), **arguments)]
    tables = ray.data.from_items(
        [{"file": file} for file in files], override_num_blocks=-(-len(files) // FILES_PER_TASK)
    ).map_batches(
        function,
        fn_kwargs=dict(arguments),
        batch_size=None,
        batch_format="pyarrow",
        label_selector=dict(machine_labels) or None,
    )
    return list(tables.iter_batches(batch_size=None, batch_format="pyarrow"))
