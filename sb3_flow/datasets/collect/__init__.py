"""Collecting datasets on this machine, with scripted experts or with a trained model."""

from sb3_flow.datasets.collect.policy import collect_with_policy
from sb3_flow.datasets.collect.run import collect

__all__ = ["collect", "collect_with_policy"]
