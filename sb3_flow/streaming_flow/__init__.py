"""Streaming flow policy, and what it is compared with."""

from sb3_flow.streaming_flow.chunk_diffusion import ChunkDiffusion
from sb3_flow.streaming_flow.chunk_flow import ChunkFlow
from sb3_flow.streaming_flow.chunk_regression import ChunkRegression
from sb3_flow.streaming_flow.policies import StreamingFlowPolicy
from sb3_flow.streaming_flow.streaming_flow import StreamingFlow

__all__ = ["ChunkDiffusion", "ChunkFlow", "ChunkRegression", "StreamingFlow", "StreamingFlowPolicy"]
