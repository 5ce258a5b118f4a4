"""Flow-policy reinforcement learning for Stable-Baselines3."""

from sb3_flow.fql import FQL

__version__ = "0.1.0"
__all__ = ["FQL"]
