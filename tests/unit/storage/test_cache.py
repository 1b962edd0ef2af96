"""The disk cache: what is stored is returned, the limit holds, and no fault stops a job."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from mmtpp.core.errors import StorageError
from mmtpp.storage.cache import DiskCache


def _table(value: int, rows: int = 1000) -> pa.Table:
    return pa.table({"x": pa.array(np.full(rows, value))})


def test_a_table_is_loaded_once_and_returned_from_the_cache(tmp_path):
    loads = []
    cache = DiskCache(tmp_path / "c", max_bytes=10**6)

    def load() -> pa.Table:
        loads.append(1)
        return _table(7)

    assert cache.table("k", load).equals(_table(7))
    assert cache.table("k", load).equals(_table(7))
    assert DiskCache(tmp_path / "c", max_bytes=10**6).table("k", load).equals(_table(7))
    assert len(loads) == 1
    assert (tmp_path / "c" / "tables").stat().st_mode & 0o777 == 0o700


def test_the_least_recently_used_tables_are_deleted(tmp_path):
    cache = DiskCache(tmp_path / "c", max_bytes=100_000)  # room for about eleven tables
    tables = {}
    for index in range(40):
        tables[index] = cache.table(str(index), lambda value=index: _table(value))
        os.utime(
            max((tmp_path / "c/tables").iterdir(), key=lambda p: p.stat().st_ctime_ns),  # pyright: ignore[reportAttributeAccessIssue]
            (index, index),
        )
        cache.table("0", lambda: pytest.fail("the table in use was deleted"))
    total = sum(path.stat().st_size for path in (tmp_path / "c/tables").iterdir())
    assert total <= 100_000 + 20_000
    assert all(table.equals(_table(value)) for value, table in tables.items())  # still mapped
    reloaded = cache.table("1", lambda: _table(-1))
    assert reloaded.equals(_table(-1))


def test_a_damaged_table_of_the_cache_is_loaded_again(tmp_path):
    cache = DiskCache(tmp_path / "c", max_bytes=10**6)
    cache.table("k", lambda: _table(1))
    (path,) = (tmp_path / "c/tables").iterdir()
    path.write_bytes(path.read_bytes()[:300])
    assert cache.table("k", lambda: _table(1)).equals(_table(1))
    assert path.stat().st_size > 300


FULL_DISK = """
import resource, sys, numpy as np, pyarrow as pa, pathlib
from mmtpp.storage.cache import DiskCache
cache = DiskCache(pathlib.Path(sys.argv[1]), max_bytes=10**9)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
for value in range(3):
    table = pa.table({"x": pa.array(np.full(10**5, value))})
    assert cache.table(str(value), lambda: table).equals(table)
"""


MAPPED = """
import pathlib, sys, numpy as np, pyarrow as pa
from mmtpp.storage.cache import DiskCache
rows, opened = 10**6, []
def batch(value):
    return pa.record_batch({"x": pa.array(np.full(rows, value))})
def load():
    opened.append(1)
    return pa.RecordBatchReader.from_batches(batch(0).schema, map(batch, range(8)))  # 61 MiB
cache = DiskCache(pathlib.Path(sys.argv[1]), max_bytes=10**9)
sys.stdin.readline()  # all processes start together
table = cache.mapped_table("k", load)
assert [table["x"][rows - 1].as_py(), table["x"][rows].as_py()] == [0, 1]
assert len(table) == 8 * rows
assert pa.default_memory_pool().max_memory() < 4 * 8 * rows
[(path, inode)] = {
    tuple(line.split(maxsplit=5)[i] for i in (5, 4))
    for line in open("/proc/self/maps") if ".arrow" in line
}
print(len(opened), inode, "deleted" in path)
"""


def test_processes_that_start_together_map_one_file(tmp_path):
    """One of them writes it, batch by batch."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", MAPPED, str(tmp_path / "c")],
            cwd=Path(__file__).parents[3],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    printed = sorted(process.communicate()[0].split() for process in processes)
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert [int(number) for number, _, _ in printed] == [0, 0, 1]
    assert len({inode for _, inode, _ in printed}) == 1
    assert {is_deleted for _, _, is_deleted in printed} == {"False"}


def test_a_file_system_without_locks_disables_the_cache(tmp_path, caplog, monkeypatch):
    def no_locks(*_arguments: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("mmtpp.storage.cache.fcntl.flock", no_locks)
    cache = DiskCache(tmp_path / "c", max_bytes=10**6)
    assert cache.mapped_table("k", lambda: _table(3).to_reader()).equals(_table(3))
    assert "No locks available" in caplog.text
    assert "store.cache_path" in caplog.text


def test_a_table_that_would_fill_the_cache_is_read(tmp_path, caplog):
    cache = DiskCache(tmp_path / "c", max_bytes=100_000)
    cache.table("small", lambda: _table(1))
    table = cache.mapped_table("large", lambda: _table(2, 10_000).to_reader())
    assert table.equals(_table(2, 10_000))
    assert "store.cache_gib" in caplog.text
    cache.table("small", lambda: pytest.fail("the other tables were deleted"))
    small = cache.mapped_table("another", lambda: _table(3).to_reader())
    assert small.equals(_table(3))


def test_a_table_that_cannot_be_mapped_is_read(tmp_path):
    (tmp_path / "file").write_text("no folder")
    cache = DiskCache(tmp_path / "file" / "c", max_bytes=10**6)
    table = cache.mapped_table("k", lambda: _table(3).to_reader())
    assert table.equals(_table(3))


def test_a_full_disk_disables_the_cache(tmp_path):
    """A limit of the operating system on the size of files causes a real error."""
    process = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path / "c")],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert process.stderr.count("cannot write to the cache") == 1
    assert "store.cache_gib" in process.stderr
    assert list((tmp_path / "c/tables").iterdir()) == []


def test_a_folder_that_cannot_be_created_disables_the_cache(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    cache = DiskCache(tmp_path / "file" / "c", max_bytes=10**6)
    assert cache.table("k", lambda: _table(3)).equals(_table(3))
    assert "store.cache_path" in caplog.text


def test_a_cache_that_other_users_can_write_into_is_refused(tmp_path):
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables").chmod(0o777)
    with pytest.raises(StorageError, match=r"(?s)trusted.*store\.cache_path"):
        DiskCache(tmp_path, max_bytes=10**6)


def test_the_cache_deletes_only_its_tables(tmp_path):
    cache = DiskCache(tmp_path, max_bytes=1)
    document = tmp_path / "tables" / "thesis.doc"
    document.write_text("years of work")
    (tmp_path / "tables" / "folder").mkdir()
    for value in range(3):
        cache.table(str(value), lambda value=value: _table(value))
    assert {path.name for path in (tmp_path / "tables").iterdir()} == {"thesis.doc", "folder"}


def test_the_limit_holds_for_processes_that_write_little(tmp_path):
    for value in range(20):
        cache = DiskCache(tmp_path, max_bytes=50_000)
        cache.table(str(value), lambda value=value: _table(value))
    assert sum(path.stat().st_size for path in (tmp_path / "tables").iterdir()) < 60_000
