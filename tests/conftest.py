"""Shared by all tests: one thread, marks, and parametrization over the algorithms by argument names."""

import os

# The networks of the tests are so small that more threads only cost time. Processes that tests start inherit this.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import python_process
import torch as th
from conformance.algorithms import ALGORITHMS
from conformance.case import AlgorithmCase
from conformance.cases import CASES
from no_pickles import no_pickles  # noqa: F401

th.set_num_threads(1)
# Files of tests need not survive a loss of power: waiting for the disk would be a twentieth of the time.
os.fsync = lambda fd: None
python_process.start_workers_by(python_process.CONTEXT)


#: Baselines that differ from another algorithm in their networks only: from ``ChunkFlow``, and from ``FlowOpt``.
LIKE_OTHERS = {"ChunkDiffusion", "ChunkRegression", "DiffusionOpt"}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="also run the tests that are marked `nightly`")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out ``nightly`` tests, unless ``--all`` or ``-m nightly`` asks for them."""
    if config.getoption("--all") or "nightly" in config.getoption("markexpr"):
        return
    nightly = [item for item in items if item.get_closest_marker("nightly")]
    config.hook.pytest_deselected(items=nightly)
    items[:] = [item for item in items if not item.get_closest_marker("nightly")]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """
    Run a test over all algorithms, or over those that have the phases which it needs.

    Those on any environment are an ``algorithm``; a ``case`` is one of all, and brings an environment and data. The tests of
    a module that share an algorithm run one after the other, so that they can share a model of it, too: by a fixture of
    ``scope="module"``.

    A test that is marked ``one_variant`` runs over the first variant of each class, one that is marked ``algorithms`` over
    those that the mark names; ``--all`` adds the other ones. In all other tests, further variants of a class are ``slow``, and
    algorithms that are ``LIKE_OTHERS`` run with ``--all``.
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
        params = [pytest.param(case, id=case.name, marks=marks(metafunc, case)) for case in cases[argument]]
        metafunc.parametrize(argument, params, scope="module")


def marks(metafunc: pytest.Metafunc, case: AlgorithmCase) -> list[pytest.MarkDecorator]:
    """The marks of a test with an algorithm."""
    mark = metafunc.definition.get_closest_marker
    first = case is next(other for other in CASES if other.cls is case.cls)
    if named := mark("algorithms"):
        assert set(named.args) <= {other.name for other in CASES}, f"{metafunc.function}: {named.args}"
        return [] if case.name in named.args else [pytest.mark.nightly]
    if case.name in LIKE_OTHERS:
        return [pytest.mark.nightly]
    if mark("one_variant"):
        return [] if first else [pytest.mark.nightly]
    return [] if first else [pytest.mark.slow]
