"""Q-learning with adjoint matching."""

from sb3_flow.qam.policies import QAMPolicy
from sb3_flow.qam.qam import QAM

__all__ = ["QAM", "QAMPolicy"]
