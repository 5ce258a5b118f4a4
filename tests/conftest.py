"""The algorithms that the conformance tests run over. A new one joins by one record in ``ALGORITHMS``."""

import pytest
import torch as th
from conformance.case import AlgorithmCase

from sb3_flow import FQL

ALGORITHMS = [
    AlgorithmCase(
        FQL,
        small={"flow_steps": 3},
        bad_arguments=(
            ({"alpha": -1.0}, "`alpha` is -1.0"),
            ({"q_agg": "max"}, "'max'"),
            ({"flow_steps": 0}, "`flow_steps` is 0"),
        ),
    ),
]

# The networks of the tests are so small that more threads only cost time.
th.set_num_threads(1)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test over all algorithms, or over those that have the phases which it needs."""
    cases = {
        "algorithm": ALGORITHMS,
        "offline_algorithm": [case for case in ALGORITHMS if case.offline],
        "online_algorithm": [case for case in ALGORITHMS if case.online],
        "two_phase_algorithm": [case for case in ALGORITHMS if case.offline and case.online],
    }
    for argument in cases.keys() & set(metafunc.fixturenames):
        metafunc.parametrize(argument, cases[argument], ids=lambda case: case.name)
