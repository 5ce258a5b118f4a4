"""Our algorithms, made known to RL Zoo."""

from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_flow import FQL
from sb3_flow.baselines import OfflineSAC, OfflineTD3
from sb3_flow.common.optional import require
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


def register() -> None:
    """
    Add our algorithms, their search spaces and configurations to RL Zoo. Calling it twice does no harm.

    RL Zoo knows algorithms by dictionaries that all its scripts share, so that this serves every one of them. Its training
    script gets our ``ExperimentManager``, which finds our configurations, reports success rates and says which key is wrong.

    :raises ImportError: If RL Zoo is not installed.
    """
    utils = require("rl_zoo3.utils", "zoo", "The command line of RL Zoo")
    tuning = require("rl_zoo3.hyperparams_opt", "zoo", "The command line of RL Zoo")
    training: Any = require("rl_zoo3.train", "zoo", "The command line of RL Zoo")
    from sb3_flow.zoo.experiment import FlowExperimentManager

    utils.ALGOS.update(ALGORITHMS)
    tuning.HYPERPARAMS_SAMPLER.update({name: space.sample for name, space in SEARCH_SPACES.items()})
    tuning.HYPERPARAMS_CONVERTER.update({name: space.convert for name, space in SEARCH_SPACES.items()})
    training.ExperimentManager = FlowExperimentManager
