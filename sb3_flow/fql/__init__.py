"""Flow Q-learning."""

from sb3_flow.fql.fql import FQL
from sb3_flow.fql.policies import FQLPolicy

__all__ = ["FQL", "FQLPolicy"]
