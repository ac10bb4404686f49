"""Where a run's numbers come from: commit, versions, hardware."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

from loku_exp import __version__
from loku_exp.stages.identity import RUN_FORMAT

PACKAGES = ("torch", "transformers", "peft", "lm_eval", "datasets", "hydra-core", "scipy")


def provenance() -> dict[str, Any]:
    """Return commit, version, packages and hardware of this run."""
    return {
        "commit": commit(),
        "version": __version__,
        "format": RUN_FORMAT,
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "hardware": {
            "machine": platform.machine(),
            "processor": _processor(),
            "cores": os.cpu_count(),
            "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
    }


def commit() -> str | None:
    """Return the commit of this checkout, marked where files differ from it; None in a wheel."""
    folder = Path(__file__).parents[1]
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        tracked = subprocess.run(
            ["git", "-C", str(folder), "ls-files", "--error-unmatch", __file__], capture_output=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return result.stdout.strip() if tracked.returncode == 0 else None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((x.partition(":")[2].strip() for x in lines if x.startswith("model name")), "")
