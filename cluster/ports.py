"""Free ports for the listeners of the local stack."""

import secrets
import socket
from collections.abc import Sequence
from pathlib import Path

from mmtpp.core.errors import ClusterError

PORTS = range(20_000, 32_768)  # above the ports of Ray's workers, below Linux's ephemeral ports


def free_ports(names: Sequence[str]) -> dict[str, int]:
    """Choose a free port for each listener, outside the range of ephemeral ports.

    Binding to port 0 would return an ephemeral port, which the system could assign to an outgoing
    connection before the service listens.
    """
    ports: list[int] = []
    candidates = [port for port in PORTS if port not in _ephemeral_ports()]
    while len(ports) < len(names) and candidates:
        port = candidates.pop(secrets.randbelow(len(candidates)))
        if _is_free(port):
            ports.append(port)
    if len(ports) < len(names):
        raise ClusterError(
            f"only {len(ports)} of {len(names)} ports are free in {PORTS.start}..{PORTS.stop - 1}"
        )
    return dict(zip(names, ports, strict=True))


def _ephemeral_ports() -> range:
    """Ports that the system assigns to outgoing connections."""
    first, last = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    return range(int(first), int(last) + 1)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("", port))  # on all interfaces, like Ray
        except OSError:
            return False
    return True
