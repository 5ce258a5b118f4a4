"""Collection of datasets on this machine, with scripted experts, a planner, or a trained model."""

from sb3_flow.datasets.collect.multi_robot import collect_multi_robot
from sb3_flow.datasets.collect.policy import collect_with_policy
from sb3_flow.datasets.collect.run import collect

__all__ = ["collect", "collect_multi_robot", "collect_with_policy"]
