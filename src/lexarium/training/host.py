"""Settings of the process that a training step on a CPU profits from. None changes a result.

glibc's malloc hands blocks above 128 KiB straight to and from the kernel, so every activation of a small
model is paid for with page faults, step after step. Keeping freed memory in the process saved 15 to 20 %
of the step of a 3 x 128 transformer (batch 32) on a shared two-core machine.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys

import torch

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # mallopt(3)


def settle(threads: int) -> None:
    """Use this many threads and, under glibc, keep freed memory for the next step."""
    torch.set_num_threads(threads)
    if sys.platform.startswith("linux"):
        with contextlib.suppress(AttributeError, OSError):  # another libc
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(_MMAP_THRESHOLD, 1 << 30)
            mallopt(_TRIM_THRESHOLD, (1 << 31) - 1)
            mallopt(_TOP_PAD, 64 << 20)


def repeatable() -> None:
    """Let the library choose kernels that give the same bits every time. Call before the device is used."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else products on a GPU are not repeatable
    torch.set_deterministic_debug_mode("warn")  # use_deterministic_algorithms would import the compiler
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a pass over every new tensor
