"""Decision Flow policy optimization (our reconstruction)."""

from sb3_flow.decision_flow.decision_flow import DecisionFlow
from sb3_flow.decision_flow.policies import DecisionFlowPolicy

__all__ = ["DecisionFlow", "DecisionFlowPolicy"]
