"""How many processes to start."""

import os


def cores() -> int:
    """Number of cores that this process may use. A job of a cluster, or ``taskset``, may use fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):  # not on all systems
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
