"""What all tests share: one thread, and the algorithms that a test asks for by the name of its argument."""

import pytest
import torch as th
from conformance.algorithms import ALGORITHMS, CASES

# The networks of the tests are so small that more threads only cost time.
th.set_num_threads(1)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """
    Run a test over all algorithms, or over those that have the phases which it needs.

    Those on any environment are an ``algorithm``; a ``case`` is one of all, and brings an environment and data.
    """
    cases = {
        "case": CASES,
        "offline_case": [case for case in CASES if case.offline],
        "algorithm": ALGORITHMS,
        "offline_algorithm": [case for case in ALGORITHMS if case.offline],
        "online_algorithm": [case for case in ALGORITHMS if case.online],
        "two_phase_algorithm": [case for case in ALGORITHMS if case.offline and case.online],
    }
    for argument in cases.keys() & set(metafunc.fixturenames):
        metafunc.parametrize(argument, cases[argument], ids=lambda case: case.name)
