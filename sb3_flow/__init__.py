"""Flow-policy reinforcement learning for Stable-Baselines3."""

import sb3_flow.datasets
import sb3_flow.envs  # noqa: F401 (so that Gymnasium knows their ids)
from sb3_flow.decision_flow import DecisionFlow
from sb3_flow.flow_opt import FlowOpt
from sb3_flow.fpmd import FPMD
from sb3_flow.fql import FQL
from sb3_flow.gfp import GFP
from sb3_flow.qam import QAM
from sb3_flow.streaming_flow import StreamingFlow
from sb3_flow.swfp import SWFP

__version__ = "0.1.0"
__all__ = ["FPMD", "FQL", "GFP", "QAM", "SWFP", "DecisionFlow", "FlowOpt", "StreamingFlow"]
