"""Work on every file of a store: here, or in Ray Data where there are many files."""

from collections.abc import Callable, Mapping

import pyarrow as pa
import ray

FILES_PER_TASK = 4
FILES_HERE = 64  # some 6 million events: done before the processes for it would have started


def over_files(
    function: Callable[..., pa.Table],
    files: list[str],
    arguments: Mapping[str, object],
    *,
    machine_labels: tuple[tuple[str, str], ...],
) -> list[pa.Table]:
    """Call a function with tables of the names of files.

    Args:
        function: takes a table with the column ``file``, and ``arguments``.
        files: names of all files.
        arguments: keyword arguments of the function.
        machine_labels: of the machines where Ray Data does it; none for any machine.
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
