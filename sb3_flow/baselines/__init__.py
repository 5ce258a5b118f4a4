"""
What flow policies are compared with: SB3's own algorithms on a data set, and policies that imitate chunks of actions by flow
matching, diffusion and regression.
"""

from sb3_flow.baselines.chunk_diffusion import ChunkDiffusion
from sb3_flow.baselines.chunk_flow import ChunkFlow
from sb3_flow.baselines.chunk_regression import ChunkRegression
from sb3_flow.baselines.offline import OfflineSAC, OfflineTD3

__all__ = ["ChunkDiffusion", "ChunkFlow", "ChunkRegression", "OfflineSAC", "OfflineTD3"]
