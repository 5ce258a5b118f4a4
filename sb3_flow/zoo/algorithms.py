"""The algorithms by their names for RL Zoo's ``--algo``."""

from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_flow.common.flow_algorithm import FlowAlgorithm
from sb3_flow.common.method import Variant
from sb3_flow.common.search import SearchSpace
from sb3_flow.methods import METHODS

#: Variants of a method have the same class and their own settings.
ALGORITHMS: dict[str, type[BaseAlgorithm]] = {
    variant.name: method.algorithm for method in METHODS for variant in method.variants
}
VARIANTS: dict[str, Variant] = {variant.name: variant for method in METHODS for variant in method.variants}
#: Search spaces of ``optimize``.
SEARCH_SPACES: dict[str, SearchSpace] = {
    name: variant.search_space for name, variant in VARIANTS.items() if variant.search_space is not None
}


def acts_by_sampling(algorithm: str) -> bool:
    """
    Whether an algorithm is evaluated by sampled actions, as in most papers about flow policies.

    :param algorithm: Name of an algorithm of RL Zoo or this package
    :return: True for flow policies whose paper samples
    """
    if algorithm not in ALGORITHMS or not issubclass(ALGORITHMS[algorithm], FlowAlgorithm):
        return False
    return not VARIANTS[algorithm].deterministic
