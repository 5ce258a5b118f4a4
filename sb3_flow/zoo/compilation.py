"""Advice to compile the updates of long runs. Commands never do it on their own: rounding would depend on the machine."""

import os
import shutil
import sys
from typing import Any

from sb3_flow.common.flow_algorithm import FlowAlgorithm

#: Timesteps from which there is advice: ten times those that pay for compilation, see docs/speed.md.
LONG_RUN = 50_000
#: What is gained.
GAIN = "usually makes updates 1.2 to 1.8 times as fast on a CPU, after half a minute of compilation; see docs/speed.md"


def has_compiler() -> bool:
    """Whether the C++ compiler of ``torch.compile`` is found, that of ``CXX`` or the usual one of the system."""
    usual = {"win32": "cl", "darwin": "clang++"}.get(sys.platform, "g++")
    return shutil.which(os.environ.get("CXX") or usual) is not None


def would_pay(algorithm: type[Any], timesteps: int | None, device: str, compile: Any) -> bool:
    """
    Whether a run should be advised to compile its updates.

    :param algorithm: Class of the algorithm
    :param timesteps: Timesteps of the run; None: those of our configurations, which are long
    :param device: Type of its device; the gain is known on a CPU only
    :param compile: The argument of the algorithm, or None if it is not given
    :return: True for a long run on a CPU that does not set ``compile``, if there is a compiler
    """
    long = timesteps is None or timesteps >= LONG_RUN
    return issubclass(algorithm, FlowAlgorithm) and long and device == "cpu" and compile is None and has_compiler()
