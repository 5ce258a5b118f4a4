"""Names of version 0.1; they are in ``sb3_flow.common.data`` today."""

from sb3_flow.common.data.offline_buffer import OfflineBuffer, Window
from sb3_flow.common.data.transitions import Steps, Transitions

__all__ = ["OfflineBuffer", "Steps", "Transitions", "Window"]
