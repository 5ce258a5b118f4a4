"""Our algorithms by name, and what is searched for each."""

from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_flow import FQL
from sb3_flow.baselines import OfflineSAC, OfflineTD3
from sb3_flow.common.updates import FlowAlgorithm
from sb3_flow.zoo.search import FQL_SPACE, SearchSpace

#: Every algorithm by the name that ``--algo`` takes.
ALGORITHMS: dict[str, type[BaseAlgorithm]] = {
    "fql": FQL,
    "sac_offline": OfflineSAC,
    "td3_offline": OfflineTD3,
}
#: What ``optimize`` searches for each of them.
SEARCH_SPACES: dict[str, SearchSpace] = {"fql": FQL_SPACE}


def acts_by_sampling(algorithm: str) -> bool:
    """
    Whether an algorithm is evaluated by sampled actions, as papers about flow policies do it.

    :param algorithm: Its name
    :return: True for those with a flow policy
    """
    return issubclass(ALGORITHMS.get(algorithm, object), FlowAlgorithm)
