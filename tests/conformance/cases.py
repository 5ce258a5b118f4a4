"""The variants that the conformance tests run over: those whose records say how they are made small."""

from conformance.case import AlgorithmCase
from conformance.environments import pendulum, transitions
from conformance.scenes import plans, scenes
from sb3_flow.common.method import Method, Variant
from sb3_flow.common.offline_to_online_algorithm import OfflineToOnlineAlgorithm
from sb3_flow.methods import METHODS

#: By the environment of a method: what makes it, and a dataset of it.
ENVIRONMENTS = {"Pendulum-v1": (pendulum, transitions), "sb3_flow/MultiRobot2D-v0": (scenes, plans)}


def make_case(method: Method, variant: Variant) -> AlgorithmCase:
    """The case of a variant: ``FQL``, or ``FPMD-M`` of the variant ``fpmd_m``."""
    assert variant.small is not None
    environment, data = ENVIRONMENTS[method.environment]
    return AlgorithmCase(
        method.algorithm,
        variant=variant.name.removeprefix(method.variants[0].name).removeprefix("_").upper(),
        small={**variant.arguments, **variant.small},
        online=issubclass(method.algorithm, OfflineToOnlineAlgorithm),
        stages=variant.stages,
        samples=variant.samples,
        environment=environment,
        data=data,
        starts=50 if environment is pendulum else 5,
    )


CASES = [make_case(method, variant) for method in METHODS for variant in method.variants if variant.small is not None]
