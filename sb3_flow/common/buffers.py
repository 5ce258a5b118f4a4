"""Imports of version 0.1. Use ``sb3_flow.common.data``."""

from sb3_flow.common.data.offline_buffer import OfflineBuffer, Window
from sb3_flow.common.data.transitions import Steps, Transitions

__all__ = ["OfflineBuffer", "Steps", "Transitions", "Window"]
