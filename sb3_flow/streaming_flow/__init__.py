"""Streaming flow policy."""

from sb3_flow.streaming_flow.policies import StreamingFlowPolicy
from sb3_flow.streaming_flow.streaming_flow import StreamingFlow

__all__ = ["StreamingFlow", "StreamingFlowPolicy"]
