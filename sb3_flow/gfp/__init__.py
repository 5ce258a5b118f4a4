"""Guided flow policy."""

from sb3_flow.gfp.gfp import GFP
from sb3_flow.gfp.policies import GFPPolicy

__all__ = ["GFP", "GFPPolicy"]
