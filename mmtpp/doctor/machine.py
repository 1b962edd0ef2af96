"""Checks of this machine: Python, packages, GPUs, collectives, limits and disks."""

import platform
import resource
import shutil
import socket
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import torch
import torch.distributed as dist
from packaging.requirements import Requirement
from torch.cuda import nccl

from mmtpp.core.errors import first_line
from mmtpp.doctor.finding import Finding

GIB = 2**30
FREE_BYTES = 20 * GIB  # recommended free space for the cache
SHARED_BYTES = 2 * GIB  # recommended size of /dev/shm, which holds Ray's objects
OPEN_FILES = 65_536  # recommended by Ray
_PACKAGE = "mmtpp"
_INSTALL = "pip install --constraint constraints.txt --editable ."
# extras that commands need, and these commands
_EXTRAS = {
    "train": "pretrain, finetune, plan and sweep",
    "track": "pretrain, finetune, evaluate, plan and sweep",
    "tune": "sweep",
}


def check_python() -> Finding:
    """Check the interpreter and the operating system."""
    version_and_system = f"{platform.python_version()}, {platform.system()} {platform.machine()}"
    if sys.platform != "linux":
        fix = "run on Linux, the only system on which Ray and DeepSpeed are tested"
        return Finding("python", "failure", version_and_system, fix)
    return Finding("python", "ok", version_and_system)


def check_packages() -> Iterator[Finding]:
    """Compare the installed versions with the requirements of the package and its extras."""
    try:
        declared = [Requirement(text) for text in requires(_PACKAGE) or []]
    except PackageNotFoundError:
        yield Finding("packages", "failure", f"{_PACKAGE} is not installed", _INSTALL)
        return
    required = [requirement for requirement in declared if _is_required(requirement, extra="")]
    problems = [_problem(requirement) for requirement in required if not _is_met(requirement)]
    for problem in problems:
        yield Finding("packages", "failure", problem, _INSTALL)
    if not problems:
        shown = ", ".join(f"{name} {_installed_version(name)}" for name in ("torch", "ray"))
        yield Finding("packages", "ok", f"{len(required)} requirements are met; {shown}")
    for extra, commands in _EXTRAS.items():
        optional = [
            requirement
            for requirement in declared
            if requirement not in required and _is_required(requirement, extra=extra)
        ]
        yield _check_extra(extra, commands, optional)


def _check_extra(extra: str, commands: str, requirements: Sequence[Requirement]) -> Finding:
    """Check the packages of an extra: a missing one is no failure, an old one is.

    Args:
        extra: Name of the extra.
        commands: Commands that need the extra.
        requirements: Packages of the extra.
    """
    unmet = [requirement for requirement in requirements if not _is_met(requirement)]
    if not unmet:
        names = [requirement.name for requirement in requirements]
        shown = ", ".join(f"{name} {_installed_version(name)}" for name in names)
        return Finding(f"extra {extra}", "ok", shown)
    are_missing = all(_installed_version(requirement.name) is None for requirement in unmet)
    return Finding(
        f"extra {extra}",
        "warning" if are_missing else "failure",
        "; ".join(_problem(requirement) for requirement in unmet),
        f"pip install 'mmtpp[{extra}]' for {commands}",
    )


def _is_required(requirement: Requirement, *, extra: str) -> bool:
    """Whether an installation with an extra, or without extras if it is empty, needs a package."""
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _is_met(requirement: Requirement) -> bool:
    installed = _installed_version(requirement.name)
    return installed is not None and requirement.specifier.contains(installed, prereleases=True)


def _problem(requirement: Requirement) -> str:
    """Describe a requirement that is not met."""
    installed = _installed_version(requirement.name) or "is missing"
    return f"{requirement.name} {installed}, {requirement.specifier} is needed"


def _installed_version(name: str) -> str | None:
    """Return the version of an installed package; None for a missing one."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def check_gpus() -> Iterator[Finding]:
    """Check that torch can use the GPUs."""
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(index)
            state = f"{index}: {device.name}, {device.total_memory / GIB:.0f} GiB"
            if torch.cuda.is_bf16_supported():
                yield Finding("gpu", "ok", state)
            else:
                fix = "set model.precision=float32, or use a GPU of 2020 or newer"
                yield Finding("gpu", "warning", f"{state}, without bfloat16", fix)
        return
    has_driver = Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi")
    if not has_driver:
        yield Finding(
            "gpu",
            "warning",
            "no GPU: jobs run on the CPU of this machine",
            "nothing to do if the workers of the cluster have GPUs",
        )
    elif torch.version.cuda is None:
        yield Finding(
            "gpu",
            "failure",
            f"a driver is installed, but torch {torch.__version__} is built without CUDA",
            "pip install --force-reinstall torch, from an index with CUDA builds",
        )
    else:
        yield Finding(
            "gpu",
            "failure",
            f"a driver is installed, but torch (CUDA {torch.version.cuda}) finds no GPU",
            "check that the driver (nvidia-smi) supports the CUDA version of torch, and that "
            "CUDA_VISIBLE_DEVICES does not hide the GPUs",
        )


def check_collectives() -> Finding:
    """Run an all-reduce: with NCCL on a GPU, with gloo otherwise."""
    on_gpu = torch.cuda.is_available() and dist.is_nccl_available()
    backend = "nccl" if on_gpu else "gloo"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    try:
        address = f"tcp://127.0.0.1:{port}"
        dist.init_process_group(backend, init_method=address, rank=0, world_size=1)
        try:
            ones = torch.ones(4, device="cuda" if on_gpu else "cpu")
            dist.all_reduce(ones)
            if ones.sum().item() != 4:
                raise RuntimeError("the all-reduce returned a wrong sum")
        finally:
            dist.destroy_process_group()
    except RuntimeError as error:  # includes torch's DistError
        fix = (
            "set NCCL_DEBUG=INFO to see the reason; set NCCL_SOCKET_IFNAME or GLOO_SOCKET_IFNAME "
            "to the network interface"
        )
        reason = first_line(error)
        return Finding("collectives", "failure", f"{backend}: {reason}", fix)
    shown = ".".join(map(str, nccl.version())) if on_gpu else "on the CPU"
    return Finding("collectives", "ok", f"{backend} {shown}")


def check_compiler() -> Finding:
    """Check the compiler that DeepSpeed needs on machines without GPUs."""
    if shutil.which("g++"):
        return Finding("compiler", "ok", "g++")
    status = "warning" if torch.cuda.is_available() else "failure"
    return Finding(
        "compiler",
        status,
        "g++ is missing: DeepSpeed compiles its collectives for the CPU with g++",
        "apt install g++",
    )


def check_process_limits() -> Iterator[Finding]:
    """Check the limit of open files and the size of shared memory."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    status = "ok" if hard >= OPEN_FILES else "warning"
    fix = (
        ""
        if status == "ok"
        else f"for large clusters, run `ulimit -Hn {OPEN_FILES}` before `ray start`"
    )
    yield Finding("open files", status, f"{soft}, at most {hard}", fix)
    shared = Path("/dev/shm")
    if shared.is_dir():
        size = shutil.disk_usage(shared).total
        status = "ok" if size >= SHARED_BYTES else "warning"
        fix = (
            ""
            if status == "ok"
            else "start the container with --shm-size=8g; otherwise Ray stores objects on disk"
        )
        yield Finding("/dev/shm", status, f"{size / GIB:.1f} GiB for Ray's objects", fix)


def check_disk(folder: Path) -> Finding:
    """Check the free space of the cache of models and event stores."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    status = "ok" if free >= FREE_BYTES else "warning"
    fix = (
        ""
        if status == "ok"
        else "set MMTPP_CACHE to a folder on a larger disk; a 7B model takes 16 GB"
    )
    return Finding("cache", status, f"{free / GIB:.0f} GiB free in {folder}", fix)
