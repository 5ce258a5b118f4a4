"""The general optimizers that the benchmark of plans compares with: they must find good plans."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch as th

from sb3_flow.planning.costs import noise
from sb3_flow.planning.filter_settings import FilterSettings
from sb3_flow.planning.observations import solver_samples
from sb3_flow.planning.polish import polish
from sb3_flow.planning.problems import Limits, Problems
from sb3_flow.planning.safety_filter import SafetyFilter
from sb3_flow.planning.scenes import Scenes, standard_limits, standard_obstacles


@pytest.fixture(scope="module")
def optimizers() -> ModuleType:
    """They are not part of the package."""
    file = Path(__file__).parents[1] / "benchmarks" / "multi_robot_optimizers.py"
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    return module


def problems(robots: int, dimensions: int, count: int) -> tuple[Limits, Problems]:
    limits = standard_limits(robots, dimensions)
    scenes = Scenes(limits, robots, standard_obstacles(robots), "mixed")
    return limits, scenes.sample(np.random.default_rng(0), count)


@pytest.mark.parametrize(("robots", "dimensions"), [(5, 2), (3, 3), (1, 2)])
def test_gradients_of_the_rows_are_those_of_finite_differences(optimizers: ModuleType, robots: int, dimensions: int) -> None:
    limits, problem = problems(robots, dimensions, 1)
    solver = optimizers.SLSQP(limits)
    y = 0.5 * np.random.default_rng(1).normal(size=(robots, dimensions, 7))
    values, gradients = solver.rows(problem, y)
    obstacles = problem.obstacles.shape[1]
    assert values.shape == (robots * (robots - 1) // 2 + robots * obstacles + 3 * robots,)
    step = 1e-6
    for index in np.ndindex(y.shape):
        change = np.zeros_like(y)
        change[index] = step
        difference = solver.rows(problem, y + change)[0] - solver.rows(problem, y - change)[0]
        np.testing.assert_allclose(gradients[(slice(None), *index)], difference / (2 * step), rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["slsqp", pytest.param("ipopt", marks=pytest.mark.nightly)])
def test_optimizers_find_plans_that_are_certified_and_as_smooth_as_ours(optimizers: ModuleType, name: str) -> None:
    if name == "ipopt":
        pytest.importorskip("casadi")
    limits, several = problems(4, 2, 3)
    filter_ = SafetyFilter(limits, FilterSettings(samples=solver_samples(limits)))
    starts = noise(several, filter_.basis, 0.2, th.Generator().manual_seed(0))
    solver = optimizers.OPTIMIZERS[name](limits)
    y = th.stack([solver.solve(several.select(th.tensor([b])), starts[b])[0] for b in range(3)])
    assert filter_.certificate.certify(several, y).safe.all()
    filtered = filter_(several, starts)
    ours = polish(filter_, several, filtered.y, filtered.safe).y
    costs = [(filter_.basis.stiffness * plans.double().square()).sum(dim=(1, 2, 3)) for plans in (y, ours)]
    assert costs[0].mean() < costs[1].mean()


def test_the_optimum_of_robots_without_conflicts_is_the_straight_line(optimizers: ModuleType) -> None:
    start = th.tensor([[[-3.0, -2.0], [-3.0, 2.0]]])
    problem = Problems.rest_to_rest(start, start * th.tensor([-1.0, 1.0]))
    y, _ = optimizers.SLSQP(Limits()).solve(problem, th.full((2, 2, 7), 0.2))
    assert y.abs().max() < 0.01  # SciPy is content when the cost falls by less than 1e-6
