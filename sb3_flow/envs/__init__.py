"""Environments and wrappers of our own. Gymnasium knows the environments by their ids once ``sb3_flow`` is imported."""

import gymnasium as gym

from sb3_flow.envs.two_goals import TwoGoals

__all__ = ["TwoGoals"]

gym.register("sb3_flow/TwoGoals-v0", entry_point="sb3_flow.envs.two_goals:TwoGoals")
