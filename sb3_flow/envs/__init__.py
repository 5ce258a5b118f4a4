"""Environments and wrappers. Importing ``sb3_flow`` registers the environments in Gymnasium."""

import gymnasium as gym

import sb3_flow.envs.absolute_action  # noqa: F401 (registers the reader of `NAME#absolute`)
from sb3_flow.envs.multi_robot import MultiRobot
from sb3_flow.envs.multi_robot_replan import MultiRobotReplan
from sb3_flow.envs.two_goals import TwoGoals
from sb3_flow.envs.two_routes import TwoRoutes

__all__ = ["MultiRobot", "MultiRobotReplan", "TwoGoals", "TwoRoutes"]

gym.register("sb3_flow/MultiRobot2D-v0", entry_point="sb3_flow.envs.multi_robot:MultiRobot")
gym.register("sb3_flow/MultiRobot3D-v0", entry_point="sb3_flow.envs.multi_robot:MultiRobot", kwargs={"dimensions": 3})
gym.register("sb3_flow/MultiRobot2DReplan-v0", entry_point="sb3_flow.envs.multi_robot_replan:MultiRobotReplan")
gym.register("sb3_flow/TwoGoals-v0", entry_point="sb3_flow.envs.two_goals:TwoGoals")
gym.register("sb3_flow/TwoRoutes-v0", entry_point="sb3_flow.envs.two_routes:TwoRoutes", max_episode_steps=400)
