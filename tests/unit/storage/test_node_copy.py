"""Local copies of remote folders: copied once, shared, limited in size."""

import fcntl
import multiprocessing
import os
import threading
import time
from pathlib import Path

import pytest

from mmtpp.core.errors import StorageError
from mmtpp.storage import node_copy as module
from mmtpp.storage.node_copy import node_copy


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MMTPP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "folders"


def _folder(path: Path, content: bytes = b"x" * 1000) -> str:
    (path / "sub").mkdir(parents=True, exist_ok=True)
    (path / "sub" / "file").write_bytes(content)
    return str(path)


def test_a_folder_is_copied_once_and_again_when_it_changes(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    copied: list[str] = []
    copy = module.copy_folder
    monkeypatch.setattr(
        module, "copy_folder", lambda uri, target: copied.append(uri) or copy(uri, target)
    )
    uri = _folder(tmp_path / "model")
    for _ in range(3):
        with node_copy(uri) as folder:
            assert (folder / "sub" / "file").read_bytes() == b"x" * 1000
    assert copied == [uri]
    _folder(tmp_path / "model", b"y" * 1000)
    os.utime(tmp_path / "model" / "sub" / "file", (1, 1))
    with node_copy(uri) as folder:
        assert (folder / "sub" / "file").read_bytes() == b"y" * 1000
    assert len(copied) == 2


def test_a_copy_that_is_not_kept_is_deleted_by_its_last_user(tmp_path: Path, cache: Path):
    uri = _folder(tmp_path / "model")
    with node_copy(uri, keep=False) as first:
        with node_copy(uri, keep=False) as second:
            assert first == second
        assert (first / "sub" / "file").exists()
    assert not first.exists()
    with pytest.raises(RuntimeError), node_copy(uri, keep=False) as third:
        raise RuntimeError
    assert not third.exists()


def _use_together(uri: str, barrier: "threading.Barrier", failures: "multiprocessing.Queue[str]"):
    for _ in range(30):
        try:
            with node_copy(uri, keep=False) as folder:
                assert (folder / "sub" / "file").exists()
                barrier.wait(30)
        except Exception as error:  # any error: the test prints it
            failures.put(repr(error))
            barrier.abort()
            return


def test_processes_can_stop_using_a_copy_at_the_same_time(tmp_path: Path, cache: Path):
    uri = _folder(tmp_path / "model")
    context = multiprocessing.get_context("fork")
    barrier, failures = context.Barrier(4), context.Queue()
    users = [context.Process(target=_use_together, args=(uri, barrier, failures)) for _ in range(4)]
    for user in users:
        user.start()
    for user in users:
        user.join()
    assert failures.empty(), failures.get()
    assert not any(path.is_dir() for path in cache.iterdir())


def _enter(uri: str, entered: "multiprocessing.Queue[int]"):
    with node_copy(uri):
        entered.put(1)


def test_no_process_waits_for_the_users_of_a_copy(tmp_path: Path, cache: Path):
    """Ranks meet in a barrier while they use the copy: waiting for a rank could be a deadlock."""
    uri = _folder(tmp_path / "model")
    with node_copy(uri) as folder:
        pass
    folder.rename(tmp_path / "aside")  # as if this process had just copied the folder
    context = multiprocessing.get_context("fork")
    entered = context.Queue()
    with (cache / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        process = context.Process(target=_enter, args=(uri, entered))
        process.start()
        time.sleep(0.5)
        assert entered.empty()
        (tmp_path / "aside").rename(folder)
        assert entered.get(timeout=20) == 1
    process.join()


def _use(uri: str, queue: "multiprocessing.Queue[float]") -> None:
    copy = module.copy_folder

    def slow(source: str, target: str) -> None:
        queue.put(1)
        time.sleep(0.5)
        copy(source, target)

    module.copy_folder = slow
    with node_copy(uri) as folder:
        assert (folder / "sub" / "file").exists()


def _run(processes: list) -> None:
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0


def test_processes_wait_while_the_first_one_copies(tmp_path: Path, cache: Path):
    uri = _folder(tmp_path / "model")
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    _run([context.Process(target=_use, args=(uri, queue)) for _ in range(4)])
    assert queue.get() == 1
    assert queue.empty()


def _meet(uri: str, barrier: "threading.Barrier") -> None:
    with node_copy(uri):
        barrier.wait(timeout=20)


def test_processes_use_a_copy_at_the_same_time(tmp_path: Path, cache: Path):
    """Ranks that load a sharded model wait for each other while they use the copy."""
    uri = _folder(tmp_path / "model")
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(3)
    _run([context.Process(target=_meet, args=(uri, barrier)) for _ in range(3)])


def test_the_partial_copy_of_a_killed_process_is_not_used(tmp_path: Path, cache: Path):
    uri = _folder(tmp_path / "model")
    with node_copy(uri) as folder:
        name = folder.name
    (cache / name).rename(cache / f"{name}.partial")
    (cache / f"{name}.partial" / "sub" / "file").write_bytes(b"half")
    with node_copy(uri) as folder:
        assert (folder / "sub" / "file").read_bytes() == b"x" * 1000
    assert not (cache / f"{name}.partial").exists()


def test_old_copies_are_deleted_but_not_copies_in_use(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "MAX_BYTES", 2500)
    uris = [_folder(tmp_path / name) for name in "abcd"]
    with node_copy(uris[0]) as used:
        with node_copy(uris[1]) as old:
            pass
        with node_copy(uris[2]):
            pass
        assert used.exists()
        assert not old.exists()


def test_a_cache_folder_that_other_users_can_write_is_refused(tmp_path: Path, cache: Path):
    cache.mkdir(parents=True)
    cache.chmod(0o777)
    with (
        pytest.raises(StorageError, match="other users could write"),
        node_copy(_folder(tmp_path / "model")),
    ):
        pass


def test_a_copy_in_use_is_locked(tmp_path: Path, cache: Path):
    with node_copy(_folder(tmp_path / "model")) as folder:
        lock = (cache / f"{folder.name}.lock").open("w")
        with pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        lock.close()
