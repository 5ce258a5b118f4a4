"""Our algorithms by name, and what is searched for each."""

from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_flow import FPMD, FQL, GFP, QAM, SWFP, DecisionFlow, FlowOpt, StreamingFlow
from sb3_flow.baselines import ChunkDiffusion, ChunkFlow, ChunkRegression, OfflineSAC, OfflineTD3
from sb3_flow.baselines.diffusion_opt import DiffusionOpt
from sb3_flow.baselines.whole_flow import WholeFlow
from sb3_flow.common.flow_algorithm import FlowAlgorithm
from sb3_flow.zoo.search import (
    DECISION_FLOW_DIV_SPACE,
    DECISION_FLOW_SPACE,
    FLOW_OPT_SPACE,
    FPMD_SPACE,
    FQL_SPACE,
    GFP_SPACE,
    QAM_EDIT_SPACE,
    QAM_FQL_SPACE,
    QAM_SPACE,
    STREAMING_FLOW_SPACE,
    STREAMING_FLOW_STOCHASTIC_SPACE,
    SWFP_SPACE,
    SearchSpace,
)

#: Every algorithm by the name that ``--algo`` takes. Variants are one class, each with settings of its own.
ALGORITHMS: dict[str, type[BaseAlgorithm]] = {
    "chunk_diffusion": ChunkDiffusion,
    "chunk_flow": ChunkFlow,
    "chunk_regression": ChunkRegression,
    "decision_flow": DecisionFlow,
    "decision_flow_div": DecisionFlow,
    "flow_opt": FlowOpt,
    "flow_opt_diffusion": DiffusionOpt,
    "fpmd": FPMD,
    "fpmd_m": FPMD,
    "fql": FQL,
    "gfp": GFP,
    "qam": QAM,
    "qam_edit": QAM,
    "qam_fql": QAM,
    "sac_offline": OfflineSAC,
    "streaming_flow": StreamingFlow,
    "streaming_flow_stochastic": StreamingFlow,
    "swfp": SWFP,
    "swfp_whole": WholeFlow,
    "td3_offline": OfflineTD3,
}
#: What ``optimize`` searches for each of them.
SEARCH_SPACES: dict[str, SearchSpace] = {
    "decision_flow": DECISION_FLOW_SPACE,
    "decision_flow_div": DECISION_FLOW_DIV_SPACE,
    "flow_opt": FLOW_OPT_SPACE,
    "flow_opt_diffusion": FLOW_OPT_SPACE,
    "fpmd": FPMD_SPACE,
    "fpmd_m": FPMD_SPACE,
    "fql": FQL_SPACE,
    "gfp": GFP_SPACE,
    "qam": QAM_SPACE,
    "qam_edit": QAM_EDIT_SPACE,
    "qam_fql": QAM_FQL_SPACE,
    "streaming_flow": STREAMING_FLOW_SPACE,
    "streaming_flow_stochastic": STREAMING_FLOW_STOCHASTIC_SPACE,
    "swfp": SWFP_SPACE,
}
#: Those with a flow policy whose paper acts without noise all the same.
NOISELESS = {"streaming_flow"}


def acts_by_sampling(algorithm: str) -> bool:
    """
    Whether an algorithm is evaluated by sampled actions, as papers about flow policies do it.

    :param algorithm: Its name
    :return: True for those with a flow policy, but for ``NOISELESS``
    """
    return algorithm not in NOISELESS and issubclass(ALGORITHMS.get(algorithm, object), FlowAlgorithm)
