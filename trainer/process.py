"""Process-wide settings that a run needs, and a description of the machine it runs on."""

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
    """Set deterministic algorithms, full float32 and an allocator that keeps its memory.

    Calling it again before each run is safe.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # use_deterministic_algorithms does the same, but imports the compiler, which takes seconds
    torch.set_deterministic_debug_mode("error")
    # filling new tensors guards against reading uninitialised memory, but costs a pass over memory each time
    torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]
    torch.backends.cudnn.benchmark = False
    torch.backends.cuda.matmul.allow_tf32 = False  # float32 must mean float32; a task can ask for bfloat16
    torch.backends.cudnn.allow_tf32 = False
    if sys.platform == "linux":
        # glibc returns buffers above 32 MiB to the kernel; getting them back takes a quarter of an epoch
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            libc.mallopt(M_MMAP_THRESHOLD, 2**30)
            libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def describe(device: torch.device) -> dict[str, str | int]:
    """Everything beside the spec that a run's numbers may depend on. Each attempt records it."""
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
    if not (checkout / ".git").exists():  # an installed package may lie inside another project's repository
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
