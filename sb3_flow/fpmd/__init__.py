"""One-step flow policy mirror descent."""

from sb3_flow.fpmd.fpmd import FPMD
from sb3_flow.fpmd.policies import FPMDPolicy

__all__ = ["FPMD", "FPMDPolicy"]
