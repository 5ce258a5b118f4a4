"""The networks of FlowOpt and the symmetries of its problems: what must not depend on order, padding or orientation."""

import pytest
import torch as th

from sb3_flow.baselines.diffusion_opt import DiffusionOptPolicy, level
from sb3_flow.flow_opt.networks import Scene, TrajectoryTransformer, embed_time
from sb3_flow.flow_opt.plans import Candidates
from sb3_flow.flow_opt.symmetries import N_SYMMETRIES, parities, symmetries, transform
from sb3_flow.planning.basis import make_basis
from sb3_flow.planning.problems import Problems

B, N, M, D, MODES = 3, 4, 5, 2, 7


def scene(robots: int = N, obstacles: int = M, seed: int = 0) -> Scene:
    generator = th.Generator().manual_seed(seed)
    return Scene(
        th.randn(B, robots, 4 * D, generator=generator),
        th.ones(B, robots, dtype=th.bool),
        th.randn(B, obstacles, D + 1, generator=generator),
        th.ones(B, obstacles, dtype=th.bool),
    )


@pytest.fixture
def network() -> TrajectoryTransformer:
    """All parameters are nonzero, so that every part changes the output."""
    th.manual_seed(0)
    network = TrajectoryTransformer(D, D * MODES, D * MODES, width=32, depth=2, heads=4)
    for parameter in network.parameters():
        parameter.data += 0.1 * th.randn_like(parameter)
    return network


def apply(network: TrajectoryTransformer, scene: Scene, points: th.Tensor, t: float = 0.3) -> th.Tensor:
    with th.no_grad():
        out: th.Tensor = network(network.context(scene), points, th.full((B, 1), t))
    return out


def points(robots: int = N) -> th.Tensor:
    return th.randn(B, robots, D * MODES, generator=th.Generator().manual_seed(1))


def test_an_untrained_network_says_nothing() -> None:
    network = TrajectoryTransformer(D, D * MODES, 3, width=32, depth=2, heads=4)
    assert (apply(network, scene(), points()) == 0).all()


def test_robots_may_come_in_any_order(network: TrajectoryTransformer) -> None:
    order, s = th.tensor([2, 0, 3, 1]), scene()
    mixed = s._replace(robots=s.robots[:, order], robot_mask=s.robot_mask[:, order])
    out = apply(network, s, points())
    assert th.allclose(apply(network, mixed, points()[:, order]), out[:, order], atol=1e-5)
    assert not th.allclose(out[:, order], out, atol=1e-2)


def test_obstacles_may_come_in_any_order(network: TrajectoryTransformer) -> None:
    s = scene()
    mixed = s._replace(obstacles=s.obstacles.flip(1))
    assert th.allclose(apply(network, mixed, points()), apply(network, s, points()), atol=1e-5)


@pytest.mark.parametrize("garbage", [0.0, 1e3])
def test_padding_has_no_say(network: TrajectoryTransformer, garbage: float) -> None:
    s = scene()

    def pad(x: th.Tensor, value: float | bool) -> th.Tensor:
        return th.cat([x, th.full((B, 2, *x.shape[2:]), value, dtype=x.dtype)], dim=1)

    padded = Scene(pad(s.robots, garbage), pad(s.robot_mask, False), pad(s.obstacles, garbage), pad(s.obstacle_mask, False))
    out = apply(network, padded, pad(points(), garbage))
    assert th.allclose(out[:, :N], apply(network, s, points()), atol=1e-5)


def test_others_obstacles_and_times_have_a_say(network: TrajectoryTransformer) -> None:
    s, x = scene(), points()
    out = apply(network, s, x)
    moved = x.clone()
    moved[:, 1] += 1
    assert (apply(network, s, moved)[:, 0] - out[:, 0]).abs().max() > 1e-3
    assert (apply(network, s._replace(obstacles=s.obstacles + 1), x) - out).abs().max() > 1e-3
    assert (apply(network, s._replace(robots=s.robots + 1), x) - out).abs().max() > 1e-3
    assert (apply(network, s, x, t=0.31) - out).abs().max() > 1e-3


def test_a_scene_without_obstacles(network: TrajectoryTransformer) -> None:
    s = scene(obstacles=0)
    hidden = scene()._replace(robots=s.robots, obstacle_mask=th.zeros(B, M, dtype=th.bool))
    assert th.allclose(apply(network, s, points()), apply(network, hidden, points()), atol=1e-5)


def test_which_obstacle_is_where_is_not_lost(network: TrajectoryTransformer) -> None:
    """Two robots that swap what they are near to: a map that was pooled alone could not tell."""
    s = scene(robots=1)
    a = s._replace(obstacles=s.obstacles[:, :1], obstacle_mask=s.obstacle_mask[:, :1])
    b = s._replace(obstacles=-s.obstacles[:, :1], obstacle_mask=s.obstacle_mask[:, :1])
    assert (apply(network, a, points(1)) - apply(network, b, points(1))).abs().max() > 1e-3


def test_times_are_told_apart() -> None:
    t = th.linspace(0, 1, 50).unsqueeze(1)
    distances = th.cdist(embed_time(t), embed_time(t)) + 100 * th.eye(50)
    assert distances.min() > 1
    assert embed_time(th.zeros(1, 1)).tolist() == [[1.0] * 128 + [0.0] * 128]


@pytest.mark.parametrize(("kwargs", "message"), [({"heads": 5}, "`attention_heads` is 5"), ({"depth": 0}, "`depth` is 0")])
def test_impossible_networks(kwargs: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrajectoryTransformer(D, 3, 3, **{"width": 32, "depth": 1, "heads": 4, **kwargs})


# Symmetries.


def trajectories(problems: Problems, y: th.Tensor) -> th.Tensor:
    line, modes = make_basis(12, 33, 10.0).sampled()
    return problems.boundary.double() @ line.T + y.double() @ modes.T


def random_problems(dimensions: int, rest: bool) -> tuple[Problems, th.Tensor]:
    generator = th.Generator().manual_seed(3)

    def normal(*shape: int) -> th.Tensor:
        return th.randn(shape, generator=generator, dtype=th.float64)

    obstacles = th.cat([normal(B, M, dimensions), th.rand(B, M, 1, generator=generator, dtype=th.float64)], dim=-1)
    problems = Problems.rest_to_rest(normal(B, N, dimensions), normal(B, N, dimensions), obstacles)
    if not rest:
        problems = problems._replace(velocity=normal(B, N, dimensions), acceleration=normal(B, N, dimensions))
    return problems, normal(B, N, dimensions, MODES)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_the_symmetries_are_those_of_the_square(dimensions: int) -> None:
    matrices = symmetries(dimensions)
    assert matrices.shape == (N_SYMMETRIES, dimensions, dimensions)
    assert th.equal(matrices[0], th.eye(dimensions, dtype=th.float64))
    assert len({tuple(matrix.flatten().tolist()) for matrix in matrices}) == N_SYMMETRIES
    assert th.equal(matrices @ matrices.mT, th.eye(dimensions, dtype=th.float64).expand_as(matrices))
    corners = th.tensor([[x, y, 0.7][:dimensions] for x in (-1.0, 1.0) for y in (-1.0, 1.0)], dtype=th.float64)
    for matrix in matrices:
        assert {tuple(p.tolist()) for p in corners @ matrix.T} == {tuple(p.tolist()) for p in corners}


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("index", range(N_SYMMETRIES))
def test_plans_turn_with_their_problems(dimensions: int, index: int) -> None:
    problems, y = random_problems(dimensions, rest=False)
    matrix = symmetries(dimensions)[index].expand(B, -1, -1)
    turned, turned_y = transform(problems, y, matrix, parities(make_basis()), th.zeros(B, dtype=th.bool))
    expected = th.einsum("ij,bnjs->bnis", matrix[0], trajectories(problems, y))
    assert th.allclose(trajectories(turned, turned_y), expected, atol=1e-9)
    # And obstacles turn with them: all distances stay.
    before = th.cdist(problems.start, problems.obstacles[..., :-1])
    assert th.allclose(th.cdist(turned.start, turned.obstacles[..., :-1]), before)
    assert th.equal(turned.obstacles[..., -1], problems.obstacles[..., -1])


@pytest.mark.parametrize("degree", [10, 12])
def test_modes_are_even_or_odd(degree: int) -> None:
    basis = make_basis(degree, 41, 10.0)
    modes = basis.sampled()[1]
    assert th.allclose(modes.flip(0), modes * parities(basis), atol=1e-8)
    assert set(parities(basis).tolist()) == {-1.0, 1.0}


def test_time_runs_backwards_where_robots_rest() -> None:
    problems, y = random_problems(2, rest=True)
    backwards = th.tensor([True, False, True])
    same = symmetries(2)[:1].expand(B, -1, -1)
    turned, turned_y = transform(problems, y, same, parities(make_basis()), backwards)
    before, after = trajectories(problems, y), trajectories(turned, turned_y)
    assert th.allclose(after[backwards], before[backwards].flip(-1), atol=1e-8)
    assert th.equal(turned_y[~backwards], y[~backwards])
    assert th.equal(turned.boundary[~backwards], problems.boundary[~backwards])
    moving, y = random_problems(2, rest=False)
    turned, turned_y = transform(moving, y, same, parities(make_basis()), backwards)
    assert th.equal(turned_y, y) and th.equal(turned.boundary, moving.boundary)


# Candidates.


def test_the_best_is_certified_then_smooth_then_roomy() -> None:
    feasible = th.tensor([[True, True, False], [False, False, False], [False, False, True]])
    cost = th.tensor([[2.0, 1.0, 0.5], [1.0, 2.0, 3.0], [1.0, 2.0, 3.0]])
    margin = th.tensor([[0.1, 0.0, -1.0], [-0.3, -0.1, th.nan], [-0.2, -0.1, 0.0]])
    candidates = Candidates(th.zeros(3, 3, 14), th.zeros(3, 3, 1, 2, 7), feasible, margin, th.zeros(3, 3), cost)
    assert candidates.best().tolist() == [1, 1, 2]


# Diffusion.


def test_the_sampler_recovers_what_is_known() -> None:
    """Where the data is one point, the exact v is known, and any number of steps ends there."""
    x1, x0 = th.randn(2, 5, 6, generator=th.Generator().manual_seed(0), dtype=th.float64)

    def exact(x: th.Tensor, t: th.Tensor) -> th.Tensor:
        data, rest = level(t)
        return data * (x - data * x1) / rest - rest * x1

    for steps in (1, 3, 10):
        policy = DiffusionOptPolicy.__new__(DiffusionOptPolicy)
        policy.__dict__["flow_steps"] = steps
        assert th.allclose(policy.integrate(exact, x0), x1, atol=1e-9)


def test_the_sampler_of_a_gaussian_keeps_its_spread() -> None:
    """v of N(0, s^2) is known as well; the sampler's map is linear, and comes near to s with enough steps."""
    s = 0.5

    def exact(x: th.Tensor, t: th.Tensor) -> th.Tensor:
        data, rest = level(t)
        variance = data**2 * s**2 + rest**2
        return data * (rest * x / variance) - rest * (data * s**2 * x / variance)

    policy = DiffusionOptPolicy.__new__(DiffusionOptPolicy)
    policy.__dict__["flow_steps"] = 200
    x0 = th.ones(1, 1, dtype=th.float64)
    assert policy.integrate(exact, x0).item() == pytest.approx(s, abs=5e-3)
