"""The processes of the local stack: identified by pid and start time, stopped with descendants.

The pid file of a service, ``NAME.pid`` in the stack's folder, holds the pid and the start time of
its first process.
"""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from mmtpp.core.errors import ClusterError

TERM_TIMEOUT_S = 6.0  # Ray's daemons take seconds to end after SIGTERM; then SIGKILL follows


def record(home: Path, name: str, pid: int) -> None:
    """Write the pid file of a service."""
    (home / f"{name}.pid").write_text(f"{pid} {start_time(pid)}")


def stop(home: Path, names: list[str]) -> list[str]:
    """Stop services and their descendants; return the names of the services that were running."""
    members: dict[int, str] = {}
    running: list[str] = []
    for name in names:
        service_members = members_of(home, name)
        members |= service_members
        running += [name] if service_members else []
    for stop_signal, timeout in ((signal.SIGTERM, TERM_TIMEOUT_S), (signal.SIGKILL, 10.0)):
        for member in members:
            with suppress(ProcessLookupError):
                os.kill(member, stop_signal)
        deadline = time.monotonic() + timeout
        while members and time.monotonic() < deadline:
            members = {
                pid: started
                for pid, started in members.items()
                if started and start_time(pid) == started
            }
            time.sleep(0.1)
    if members:
        raise ClusterError(f"these processes did not end after SIGKILL: {sorted(members)}")
    for name in names:
        (home / f"{name}.pid").unlink(missing_ok=True)
    return running


def members_of(home: Path, name: str) -> dict[int, str]:
    """Pids and start times of the processes of a service, also after its leader ended.

    The start time distinguishes a process from a later process with the same pid.
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
    """Start time of a process in clock ticks since boot; empty if it ended or is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]
