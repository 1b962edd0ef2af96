"""The processes of the local stack: found by pid and start time, and stopped with all they started.

A service's pid file, ``NAME.pid`` in the stack's folder, holds the pid of its first process and
when that started.
"""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from mmtpp.core.errors import ClusterError

TERM_TIMEOUT_S = 6.0  # Ray's daemons outlive SIGTERM for seconds; then SIGKILL


def record(home: Path, name: str, pid: int) -> None:
    """Write a service's pid file."""
    (home / f"{name}.pid").write_text(f"{pid} {start_time(pid)}")


def stop(home: Path, names: list[str]) -> list[str]:
    """Stop services with everything they started; returns those that were running."""
    members: dict[int, str] = {}
    running: list[str] = []
    for name in names:
        of_service = members_of(home, name)
        members |= of_service
        running += [name] if of_service else []
    for stop_signal, patience in ((signal.SIGTERM, TERM_TIMEOUT_S), (signal.SIGKILL, 10.0)):
        for member in members:
            with suppress(ProcessLookupError):
                os.kill(member, stop_signal)
        deadline = time.monotonic() + patience
        while members and time.monotonic() < deadline:
            members = {pid: at for pid, at in members.items() if at and start_time(pid) == at}
            time.sleep(0.1)
    if members:
        raise ClusterError(f"processes that will not end: {sorted(members)}")
    for name in names:
        (home / f"{name}.pid").unlink(missing_ok=True)
    return running


def members_of(home: Path, name: str) -> dict[int, str]:
    """Pids and start times of a service's processes, its leader dead or alive.

    With its start time a pid that another process got meanwhile is not mistaken for ours.
    """
    try:
        leader, started = (home / f"{name}.pid").read_text().split()
    except (OSError, ValueError):
        return {}
    if start_time(int(leader)) not in ("", started):
        return {}
    return {pid: at for pid in _session_members(int(leader)) if (at := start_time(pid))}


def _session_members(leader: int) -> list[int]:
    """The leader's descendants and every process of its session, the leader first."""
    members, known = [leader], {leader}
    status = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            status[int(entry.name)] = (int(fields[1]), int(fields[3]))
    changed = True
    while changed:
        changed = False
        for pid, (parent, session) in status.items():
            if pid not in known and (parent in known or session in known):
                known.add(pid)
                members.append(pid)
                changed = True
    return members


def is_running(home: Path, name: str) -> bool:
    """Whether the first process of a service is alive."""
    try:
        pid, started = (home / f"{name}.pid").read_text().split()
    except (OSError, ValueError):
        return False
    return start_time(int(pid)) == started


def start_time(pid: int) -> str:
    """When a process started, in clock ticks since boot; empty if it is gone or a zombie.

    With it a pid that was given to another process is never mistaken for ours.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]
