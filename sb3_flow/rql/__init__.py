"""Reversal Q-learning."""

from sb3_flow.rql.policies import RQLPolicy
from sb3_flow.rql.rql import RQL

__all__ = ["RQL", "RQLPolicy"]
