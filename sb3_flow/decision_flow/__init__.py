"""Decision Flow policy optimisation."""

from sb3_flow.decision_flow.decision_flow import DecisionFlow
from sb3_flow.decision_flow.policies import DecisionFlowPolicy

__all__ = ["DecisionFlow", "DecisionFlowPolicy"]
