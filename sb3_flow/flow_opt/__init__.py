"""Flow-Opt (our reconstruction): multi-robot plans by a flow and a safety filter."""

from sb3_flow.flow_opt.flow_opt import FlowOpt
from sb3_flow.flow_opt.policies import FlowOptPolicy

__all__ = ["FlowOpt", "FlowOptPolicy"]
