"""Registration of the algorithms in RL Zoo."""

from typing import Any

from sb3_flow.common.optional import require
from sb3_flow.zoo.algorithms import ALGORITHMS, SEARCH_SPACES


def register() -> None:
    """
    Add our algorithms, their search spaces and configurations to RL Zoo. It may be called several times.

    All scripts of RL Zoo share its dictionaries of algorithms. The training script gets our ``ExperimentManager``, which finds
    our configurations, enables success rates, and names invalid keys.

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
