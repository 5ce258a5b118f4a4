"""
One record per method. All lists of methods derive from these records: the exports of ``sb3_flow``, RL Zoo's names and search
spaces, benchmarks, conformance tests, and the tables of the README and of the documentation.
"""

from sb3_flow.baselines import (
    IFQL,
    ChunkDiffusion,
    ChunkFlow,
    ChunkRegression,
    DiffusionOpt,
    OfflineSAC,
    OfflineTD3,
    WholeFlow,
)
from sb3_flow.baselines.ifql import IFQL_SPACE
from sb3_flow.common.method import Method, Variant
from sb3_flow.decision_flow import DecisionFlow
from sb3_flow.decision_flow.search import DECISION_FLOW_DIV_SPACE, DECISION_FLOW_SPACE
from sb3_flow.flow_opt import FlowOpt
from sb3_flow.flow_opt.search import FLOW_OPT_SPACE
from sb3_flow.fpmd import FPMD
from sb3_flow.fpmd.search import FPMD_SPACE
from sb3_flow.fql import FQL
from sb3_flow.fql.search import FQL_SPACE
from sb3_flow.gfp import GFP
from sb3_flow.gfp.search import GFP_SPACE
from sb3_flow.qam import QAM
from sb3_flow.qam.search import QAM_EDIT_SPACE, QAM_FQL_SPACE, QAM_KL_SPACE, QAM_SPACE
from sb3_flow.rql import RQL
from sb3_flow.rql.search import RQL_SPACE
from sb3_flow.streaming_flow import StreamingFlow
from sb3_flow.streaming_flow.search import STREAMING_FLOW_SPACE, STREAMING_FLOW_STOCHASTIC_SPACE
from sb3_flow.swfp import SWFP
from sb3_flow.swfp.search import SWFP_SPACE

#: The exports of ``sb3_flow``. DecisionFlow, SWFP and FlowOpt are our reconstructions.
__all__ = ["FPMD", "FQL", "GFP", "IFQL", "QAM", "RQL", "SWFP", "DecisionFlow", "FlowOpt", "StreamingFlow"]

ALL_REGIMES = "offline, offline-to-online, online"
#: Small settings of several methods. The learning rate of imitation is constant, as that of the other methods.
FEW_STEPS = {"flow_steps": 3}
SMALL_FPMD = {"flow_steps": 3, "particles": 4, "learning_starts": 10}
SMALL_CHUNKS = {"horizon_length": 4, "cosine": False}
SMALL_STREAMING = {**SMALL_CHUNKS, "k": 0.5}
SMALL_PLANS = {
    "batch_size": 16,
    "initializer_batch_size": 4,
    "imitated_iterations": 5,
    "unrolled_iterations": 3,
    "policy_kwargs": {
        **{"width": 16, "depth": 1, "attention_heads": 2, "initializer_width": 16, "initializer_depth": 1},
        "best_of_n": 2,
    },
}
#: Only SWFP's updates of critics and blocks, without behavior cloning and absorption.
IMPROVING = {"bc_steps": 0, "critic_steps": 0, "absorb_interval": 0}

METHODS = (
    Method(
        FQL,
        "Flow Q-learning (Park et al., 2025)",
        ALL_REGIMES,
        (Variant("fql", search_space=FQL_SPACE, small=FEW_STEPS, updates={}),),
        paper="https://arxiv.org/abs/2502.02538",
        docs="fql.md",
        shown="success rate [1.00](results/cube_noisy/README.md) on a noisy cube after 100,000 updates; its BC flow has 0.16",
    ),
    Method(
        QAM,
        "Q-learning with adjoint matching (Li and Levine, 2026): plain, trust-region QAM, QAM-FQL, QAM-EDIT",
        ALL_REGIMES,
        (
            Variant("qam", search_space=QAM_SPACE, small=FEW_STEPS, updates={}),
            Variant("qam_kl", {"kl_budget": 1.0}, QAM_KL_SPACE, small=FEW_STEPS, updates={}),
            Variant("qam_fql", {"fql_alpha": 10.0}, QAM_FQL_SPACE, updates={}),
            Variant("qam_edit", {"edit_scale": 0.3}, QAM_EDIT_SPACE, small=FEW_STEPS, updates={}),
        ),
        paper="https://arxiv.org/abs/2601.14234",
        docs="qam.md",
        shown="[0.99](results/cube_noisy_30k/README.md) on a noisy cube after 30,000 updates, 0.95 with a budget; FQL 0.93",
    ),
    Method(
        RQL,
        "Reversal Q-learning (Oberai et al., 2026)",
        ALL_REGIMES,
        (Variant("rql", search_space=RQL_SPACE, small=FEW_STEPS, updates={}),),
        paper="https://arxiv.org/abs/2606.17551",
        docs="rql.md",
        shown="[0.98](results/cube_noisy_30k/README.md) on a noisy cube after 30,000 updates; FQL has 0.93",
    ),
    Method(
        GFP,
        "Guided flow policy (Tiofack et al., 2026)",
        ALL_REGIMES,
        (
            Variant(
                "gfp",
                search_space=GFP_SPACE,
                small={**FEW_STEPS, "target_agg": "mean", "guidance_agg": "min"},
                updates={},
            ),
        ),
        paper="https://arxiv.org/abs/2512.03973",
        docs="gfp.md",
        shown="return [4,579](results/locomotion/README.md) from the replay of SAC on HalfCheetah, BC 2,105; "
        "[0.84](results/cube_noisy_30k/README.md) on a noisy cube, FQL 0.93",
    ),
    Method(
        FPMD,
        "Flow policy mirror descent (Chen et al., 2025): FPMD-R, FPMD-M",
        "online",
        (
            Variant("fpmd", search_space=FPMD_SPACE, small=SMALL_FPMD, updates={}),
            Variant(
                "fpmd_m",
                {"flow": "mean"},
                FPMD_SPACE,
                small={**SMALL_FPMD, "equal_time_probability": 0.25},
                updates={},
            ),
        ),
        paper="https://arxiv.org/abs/2507.23675",
        docs="fpmd.md",
        shown="[0.59](docs/fpmd.md#two-goals) with two goals, SAC 0.39; [below SAC](results/online/README.md) elsewhere",
    ),
    Method(
        SWFP,
        "Stepwise flow policy (2025): a BC flow is improved online by a cascade of small blocks",
        "offline-to-online, from a BC flow",
        (
            Variant(
                "swfp",
                search_space=SWFP_SPACE,
                small={
                    **FEW_STEPS,
                    **{"n_blocks": 2, "bc_steps": 5, "critic_steps": 5, "absorb_interval": 8, "absorb_steps": 4},
                },
                updates=IMPROVING,
                stages=15,  # 5 in "clone", 5 in "evaluate", and the fifth in "improve" is the first with absorption
            ),
        ),
        paper="https://arxiv.org/abs/2510.15388",
        docs="swfp.md",
        shown="improves a BC flow of 0.06 to [0.66](results/swfp/README.md) on a noisy cube",
        reconstructed=True,
    ),
    Method(
        DecisionFlow,
        "Decision Flow (Hu et al., 2025): DF-dir and DF-div",
        ALL_REGIMES,
        (
            Variant("decision_flow", search_space=DECISION_FLOW_SPACE, small=FEW_STEPS, updates={}),
            Variant(
                "decision_flow_div",
                {"variant": "div"},
                DECISION_FLOW_DIV_SPACE,
                small={**FEW_STEPS, "flow_target": "td"},
                updates={},
            ),
        ),
        paper="https://arxiv.org/abs/2505.20350",
        docs="decision_flow.md",
        shown="[0.79](results/cube_noisy_30k/README.md), 0.66 (DF-dir, DF-div) on a noisy cube; BC 0.11, FQL 0.93; "
        "DF-div [level with FQL](results/locomotion/README.md) on HalfCheetah, Hopper and Walker2d",
        reconstructed=True,
    ),
    Method(
        StreamingFlow,
        "Streaming flow policy (Jiang et al., 2025): the flow is the sequence of actions",
        "imitation",
        (
            Variant("streaming_flow", search_space=STREAMING_FLOW_SPACE, deterministic=True, small=SMALL_STREAMING),
            Variant("streaming_flow_stochastic", {"stochastic": True}, STREAMING_FLOW_STOCHASTIC_SPACE, small=SMALL_STREAMING),
        ),
        paper="https://arxiv.org/abs/2505.21851",
        docs="streaming_flow.md",
        shown="[0.85](results/streaming_flow/README.md) on a cube, a flow of whole chunks has 0.43; "
        "Push-T [0.55](results/imitation/README.md), one seed",
    ),
    Method(
        FlowOpt,
        "Flow-Opt (Idoko et al., 2025): plans of many robots by a flow, a safety filter and a certificate",
        "imitation of an expert",
        (Variant("flow_opt", search_space=FLOW_OPT_SPACE, small=SMALL_PLANS),),
        paper="https://arxiv.org/abs/2510.09204v2",
        docs="flow_opt.md",
        shown="certified plans for [200 of 200](results/multi_robot/README.md) scenes of 16 robots",
        reconstructed=True,
        environment="sb3_flow/MultiRobot2D-v0",
    ),
    Method(
        IFQL,
        "Implicit flow Q-learning, a baseline of the FQL paper (Park et al., 2025)",
        ALL_REGIMES,
        (Variant("ifql", search_space=IFQL_SPACE, small={**FEW_STEPS, "num_samples": 2}, updates={}),),
        paper="https://arxiv.org/abs/2502.02538",
        docs="ifql.md",
        baseline=True,
    ),
    Method(
        WholeFlow,
        "The BC flow of SWFP, fine-tuned as a whole",
        "offline-to-online, from a BC flow",
        (Variant("swfp_whole", updates=IMPROVING),),
        docs="swfp.md",
        baseline=True,
    ),
    Method(
        DiffusionOpt,
        "FlowOpt with a diffusion model",
        "imitation of an expert",
        (Variant("flow_opt_diffusion", search_space=FLOW_OPT_SPACE, small=SMALL_PLANS),),
        docs="flow_opt.md",
        baseline=True,
        environment="sb3_flow/MultiRobot2D-v0",
    ),
    Method(
        ChunkFlow,
        "Chunks of actions by flow matching",
        "imitation",
        (Variant("chunk_flow", small={**SMALL_CHUNKS, **FEW_STEPS}),),
        docs="streaming_flow.md",
        baseline=True,
    ),
    Method(
        ChunkDiffusion,
        "Chunks of actions by diffusion (DDPM and DDIM)",
        "imitation",
        (Variant("chunk_diffusion", small={**SMALL_CHUNKS, "diffusion_steps": 8, "ddim_steps": 3}),),
        docs="streaming_flow.md",
        baseline=True,
    ),
    Method(
        ChunkRegression,
        "Chunks of actions by regression",
        "imitation",
        (Variant("chunk_regression", small=SMALL_CHUNKS, samples=False),),
        docs="streaming_flow.md",
        baseline=True,
    ),
    Method(OfflineTD3, "TD3 of Stable-Baselines3 on a dataset", "offline", (Variant("td3_offline"),), baseline=True),
    Method(OfflineSAC, "SAC of Stable-Baselines3 on a dataset", "offline", (Variant("sac_offline"),), baseline=True),
)
