"""Stepwise flow policy (our reconstruction)."""

from sb3_flow.swfp.policies import SWFPPolicy
from sb3_flow.swfp.swfp import SWFP

__all__ = ["SWFP", "SWFPPolicy"]
