"""Versions and hardware of a run, which are saved with its results."""

import os
import platform
from importlib import metadata
from pathlib import Path

import torch as th

#: Packages whose versions matter for results; packages that are not installed are omitted.
PACKAGES = (
    *("sb3_flow", "stable-baselines3", "torch", "numpy", "gymnasium", "mujoco", "ogbench", "dm-control", "shimmy", "rl_zoo3"),
)


def describe_system() -> dict[str, str]:
    """
    Describe this process and its machine.

    :return: Versions by package, and ``python``, ``cpu``, ``cores``, ``threads`` (of PyTorch) and ``gpu``
    """
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        **versions,
        "cpu": _processor(),
        "cores": str(os.cpu_count()),
        "threads": str(th.get_num_threads()),
        "gpu": th.cuda.get_device_name() if th.cuda.is_available() else "none",
    }


def _processor() -> str:
    """Name of the processor, which Python knows on some systems only."""
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
