"""
Checkpoints of runs, and resuming.

Algorithms implement the protocol ``Resumable``. ``TrainingCheckpoint`` is the callback that users pass to ``learn``.
"""

from sb3_flow.common.checkpoints.layout import BUFFER, MODEL, STATISTICS, checkpoints, latest_checkpoint, part
from sb3_flow.common.checkpoints.random_state import seed_from
from sb3_flow.common.checkpoints.resume import go_on, resume
from sb3_flow.common.checkpoints.run import Resumable, Run
from sb3_flow.common.checkpoints.statistics import load_statistics, save_statistics
from sb3_flow.common.checkpoints.training_checkpoint import TrainingCheckpoint, write_due

__all__ = [
    "BUFFER",
    "MODEL",
    "STATISTICS",
    "Resumable",
    "Run",
    "TrainingCheckpoint",
    "checkpoints",
    "go_on",
    "latest_checkpoint",
    "load_statistics",
    "part",
    "resume",
    "save_statistics",
    "seed_from",
    "write_due",
]
