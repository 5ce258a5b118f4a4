"""
Baselines: SAC and TD3 of Stable-Baselines3 on a dataset, imitation of action chunks by flow matching, diffusion and
regression, fine-tuning of a whole flow (for SWFP), and a diffusion model of plans (for FlowOpt).
"""

from sb3_flow.baselines.chunk_diffusion import ChunkDiffusion
from sb3_flow.baselines.chunk_flow import ChunkFlow
from sb3_flow.baselines.chunk_regression import ChunkRegression
from sb3_flow.baselines.diffusion_opt import DiffusionOpt
from sb3_flow.baselines.ifql import IFQL
from sb3_flow.baselines.offline import OfflineSAC, OfflineTD3
from sb3_flow.baselines.whole_flow import WholeFlow

__all__ = ["IFQL", "ChunkDiffusion", "ChunkFlow", "ChunkRegression", "DiffusionOpt", "OfflineSAC", "OfflineTD3", "WholeFlow"]
