"""Checks of this machine: Python, packages, GPUs, collectives, limits and disks."""

import platform
import resource
import shutil
import socket
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import torch
import torch.distributed as dist
from packaging.requirements import Requirement
from torch.cuda import nccl

from mmtpp.doctor.finding import Finding

GIB = 2**30
FREE_BYTES = 20 * GIB
SHARED_BYTES = 2 * GIB  # of /dev/shm, where Ray keeps objects
OPEN_FILES = 65_536  # what Ray recommends
_PACKAGE = "mmtpp"


def check_python() -> Finding:
    """The interpreter and the system."""
    where = f"{platform.python_version()}, {platform.system()} {platform.machine()}"
    if sys.platform != "linux":
        return Finding("python", "failure", where, "run on Linux: Ray's and DeepSpeed's is tested")
    return Finding("python", "ok", where)


def check_packages() -> Iterator[Finding]:
    """Installed versions against what the package asks for."""
    fix = "pip install --constraint constraints.txt --editable ."
    try:
        wanted = [Requirement(requirement) for requirement in requires(_PACKAGE) or []]
    except PackageNotFoundError:
        yield Finding("packages", "failure", f"{_PACKAGE} is not installed", fix)
        return
    wanted = [
        requirement
        for requirement in wanted
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    ]
    problems = 0
    for requirement in wanted:
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            installed = ""
        if not installed or not requirement.specifier.contains(installed, prereleases=True):
            problems += 1
            what = (
                f"{requirement.name} {installed or 'is missing'}, {requirement.specifier} is needed"
            )
            yield Finding("packages", "failure", what, fix)
    if not problems:
        shown = ", ".join(f"{name} {version(name)}" for name in ("torch", "ray", "deepspeed"))
        yield Finding("packages", "ok", f"{len(wanted)} as needed; {shown}")


def check_gpus() -> Iterator[Finding]:
    """GPUs and what torch can do with them."""
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(index)
            what = f"{index}: {device.name}, {device.total_memory / GIB:.0f} GiB"
            if torch.cuda.is_bf16_supported():
                yield Finding("gpu", "ok", what)
            else:
                fix = "model.precision=float32, or a GPU of 2020 or newer"
                yield Finding("gpu", "warning", f"{what}, without bfloat16", fix)
        return
    has_driver = Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi")
    if not has_driver:
        yield Finding(
            "gpu",
            "warning",
            "none: jobs run on processors here",
            "nothing, if the cluster's workers have them",
        )
    elif torch.version.cuda is None:
        yield Finding(
            "gpu",
            "failure",
            f"there is a driver, but torch {torch.__version__} is built without CUDA",
            "pip install --force-reinstall torch, from an index with CUDA builds",
        )
    else:
        yield Finding(
            "gpu",
            "failure",
            f"there is a driver, but torch (CUDA {torch.version.cuda}) finds no device",
            "compare the driver's CUDA version (nvidia-smi) with "
            "torch's; look at CUDA_VISIBLE_DEVICES",
        )


def check_collectives() -> Finding:
    """A real all-reduce, of NCCL where there are GPUs, else of gloo."""
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
                raise RuntimeError("its sums are wrong")
        finally:
            dist.destroy_process_group()
    except RuntimeError as error:  # torch's DistError and its backends'
        fix = "NCCL_DEBUG=INFO says why; NCCL_SOCKET_IFNAME, GLOO_SOCKET_IFNAME name the interface"
        return Finding("collectives", "failure", f"{backend}: {str(error).splitlines()[0]}", fix)
    shown = ".".join(map(str, nccl.version())) if on_gpu else "on processors"
    return Finding("collectives", "ok", f"{backend} {shown}")


def check_compiler() -> Finding:
    """What compiles DeepSpeed's operators where there are no GPUs."""
    if shutil.which("g++"):
        return Finding("compiler", "ok", "g++")
    status = "warning" if torch.cuda.is_available() else "failure"
    return Finding(
        "compiler",
        status,
        "g++ is missing: DeepSpeed compiles its collectives on processors with it",
        "apt install g++",
    )


def check_limits() -> Iterator[Finding]:
    """Open files and shared memory, which Ray needs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    status = "ok" if hard >= OPEN_FILES else "warning"
    fix = (
        "" if status == "ok" else f"ulimit -Hn {OPEN_FILES} before `ray start`, for large clusters"
    )
    yield Finding("open files", status, f"{soft}, at most {hard}", fix)
    shared = Path("/dev/shm")
    if shared.is_dir():
        size = shutil.disk_usage(shared).total
        status = "ok" if size >= SHARED_BYTES else "warning"
        fix = "" if status == "ok" else "docker run --shm-size=8g; Ray falls back to the disk"
        yield Finding("/dev/shm", status, f"{size / GIB:.1f} GiB for Ray's objects", fix)


def check_disk(folder: Path) -> Finding:
    """Where models and event stores are cached."""
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(there).free
    status = "ok" if free >= FREE_BYTES else "warning"
    fix = "" if status == "ok" else "MMTPP_CACHE names another folder; a 7B takes 16 GB there"
    return Finding("cache", status, f"{free / GIB:.0f} GiB free in {folder}", fix)
