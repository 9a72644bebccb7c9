"""Process-wide settings a run needs: deterministic algorithms, honest float32, and an allocator that keeps its pages."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
from functools import cache
from pathlib import Path

import torch

from trainer.code import code_hash

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


def prepare() -> None:
    """Make this process fit to train; safe to call for every run."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_deterministic_debug_mode(
        "error"
    )  # what use_deterministic_algorithms does, without importing the compiler (seconds)
    # a guard against reading what empty() holds, at a pass over memory each time
    torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]
    torch.backends.cudnn.benchmark = False
    torch.backends.cuda.matmul.allow_tf32 = False  # float32 says float32; bfloat16 is asked for by name
    torch.backends.cudnn.allow_tf32 = False
    if sys.platform == "linux":
        # glibc gives buffers above 32 MiB back to the kernel at once and faults every page in again: a quarter of an epoch
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            libc.mallopt(M_MMAP_THRESHOLD, 2**30)
            libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def describe(device: torch.device) -> dict[str, str | int]:
    """What a run's numbers may depend on beside its spec; recorded with each attempt."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {
        "code": code_hash(),
        "commit": _git_commit(),
        "torch": str(torch.__version__),
        "device": device.type,
        "device_name": name,
        "node": platform.node(),
        "threads": torch.get_num_threads(),
    }


@cache
def _git_commit() -> str:
    checkout = Path(__file__).parents[1]
    if not (checkout / ".git").exists():  # installed: a repository further up is somebody else's
        return "unknown"
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "unknown"
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown"
    )
