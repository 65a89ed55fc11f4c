"""Where a result comes from: code, versions, hardware, command line, hashes.

Only an allow-list of environment variables is recorded, so that no secret enters a run directory. Values
of fields that look like secrets are refused by `refuse_secrets`.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from lexarium.foundation.types import UserError

ENVIRONMENT = (
    "OMP_NUM_THREADS",
    "CUDA_VISIBLE_DEVICES",
    "CUBLAS_WORKSPACE_CONFIG",
    "SLURM_JOB_ID",
    "SLURM_RESTART_COUNT",
    "WORLD_SIZE",
)
PACKAGES = (
    "lexarium",
    "torch",
    "numpy",
    "pydantic",
    "safetensors",
    "tokenizers",
    "scipy",
    "pyarrow",
    "transformers",
)
SECRET_WORDS = ("api_key", "apikey", "password", "passwd", "secret", "access_token", "auth_token")
MAX_PATCH = 1 << 20


def collect() -> dict[str, Any]:
    """Everything known about this process and its machine."""
    package = Path(__file__).resolve().parent.parent
    code, _ = git_state(package)
    here, _ = git_state(Path.cwd())
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "code": code,
        "working_directory": here,
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "hardware": hardware(),
        "environment": {name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def hardware() -> dict[str, Any]:
    """Machine, processor, cores, memory, and accelerators when torch is loaded."""
    found: dict[str, Any] = {
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
    }
    with_memory = Path("/proc/meminfo")
    if with_memory.exists():
        found["memory_gib"] = round(int(with_memory.read_text().split()[1]) / 2**20, 1)
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        found["accelerators"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return found


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def git_state(folder: Path) -> tuple[dict[str, Any] | None, str]:
    """Commit of the repository around a folder and whether it was changed; and the patch (at most 1 MiB)."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(folder), *arguments],
                capture_output=True,
                text=True,
                timeout=20,
                errors="replace",
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    if commit is None:
        return None, ""
    patch = git("diff", "HEAD") or ""
    state = {"commit": commit.strip(), "changed": bool(patch), "patch_bytes": len(patch)}
    return state, patch[:MAX_PATCH]


def patch() -> str:
    """Uncommitted changes of the package's own repository, if it lies in one."""
    return git_state(Path(__file__).resolve().parent.parent)[1]


def refuse_secrets(data: Any, place: str = "") -> None:
    """Raise UserError when a configuration holds a field that looks like a secret."""
    if isinstance(data, dict):
        for key, value in data.items():
            if any(word in str(key).lower() for word in SECRET_WORDS):
                raise UserError(
                    f"{place}{key}: looks like a secret; configurations are saved with results, so keep it out"
                )
            refuse_secrets(value, f"{place}{key}.")
    elif isinstance(data, list):
        for i, value in enumerate(data):
            refuse_secrets(value, f"{place}{i}.")
