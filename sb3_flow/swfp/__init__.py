"""Stepwise flow policy."""

from sb3_flow.swfp.policies import SWFPPolicy
from sb3_flow.swfp.swfp import SWFP
from sb3_flow.swfp.whole_flow import WholeFlow

__all__ = ["SWFP", "SWFPPolicy", "WholeFlow"]
