"""Plans that are called safe are: against a judge of its own on a finer grid, and against formulas."""

import numpy as np
import pytest
import torch as th
from planning_problems import judge, least

from sb3_flow.planning.basis import bernstein, differences, make_basis
from sb3_flow.planning.certificate import Certificate, Slacks, local_coefficients
from sb3_flow.planning.problems import Limits, Problems

#: Four cases: 20 000 plans.
PER_CASE, CHUNK = 5000, 250


def random_problems(batch: int, robots: int, dimensions: int, generator: th.Generator) -> Problems:
    """Problems with moving starts, padding, and obstacles, in a workspace of about 8 m."""

    def uniform(*shape: int, scale: float = 1.0) -> th.Tensor:
        return scale * (2 * th.rand(batch, *shape, generator=generator, dtype=th.float64) - 1)

    obstacles = th.cat([uniform(2, dimensions, scale=4), uniform(2, 1, scale=0.2) + 0.3], dim=-1)
    there = th.rand(batch, robots, generator=generator) < 0.9
    there[:, 0] = True
    return Problems(
        uniform(robots, dimensions, scale=3.8),
        uniform(robots, dimensions, scale=3.8),
        uniform(robots, dimensions, scale=0.3),
        uniform(robots, dimensions, scale=0.3),
        there,
        obstacles,
        th.rand(batch, 2, generator=generator) < 0.9,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dimensions", "degree", "samples"),
    [(3, 12, 16), *(pytest.param(*other, marks=pytest.mark.nightly) for other in ((2, 12, 64), (2, 10, 16), (3, 10, 64)))],
)
def test_no_certificate_is_false(dimensions: int, degree: int, samples: int) -> None:
    """Half of the plans are anywhere, the others about as far from the straight line as they are certified."""
    generator = th.Generator().manual_seed(degree * samples)
    limits = Limits(dimensions=dimensions, size=4.2, radius=0.25, v_max=2.0, a_max=1.6)
    certificate, basis = Certificate(limits, degree, samples), make_basis(degree, samples, limits.horizon)
    n_safe, n_certified = 0, 0
    for _ in range(PER_CASE // CHUNK):
        problems = random_problems(CHUNK, 3, dimensions, generator)
        direction = th.randn(CHUNK, 3, dimensions, basis.n_modes, generator=generator, dtype=th.float64)
        direction *= (basis.stiffness / basis.stiffness[0]) ** -0.5
        low, high = th.zeros(CHUNK, 1, 1, 1, dtype=th.float64), th.full((CHUNK, 1, 1, 1), 1.5, dtype=th.float64)
        for _ in range(5):
            middle = (low + high) / 2
            safe = certificate.certify(problems, middle * direction).safe[:, None, None, None]
            low, high = th.where(safe, middle, low), th.where(safe, high, middle)
        anywhere = th.rand(CHUNK, 1, 1, 1, generator=generator, dtype=th.float64)
        y = th.where(anywhere < 0.5, 2 * anywhere, low) * direction

        certified = certificate.certify(problems, y)
        truth = judge(problems, y, basis, limits)
        safe = certified.safe.numpy()
        assert not (safe & (least(truth) < 0)).any()
        assert (certified.margin.numpy() <= np.minimum(truth["pairs"], truth["obstacles"])).all()
        for name, slack in certificate.slacks(problems, y)._asdict().items():
            assert (slack.numpy() <= truth[name] + 1e-12).all(), name  # bounds from below, every one
        n_certified += int(safe.sum())
        n_safe += int((least(truth) >= 0).sum())
    assert 0.15 < n_certified / PER_CASE < 0.85
    # Few are turned down although they are safe.
    assert n_certified > (0.95 if samples == 64 else 0.6) * n_safe


def test_two_robots_that_meet_between_two_samples() -> None:
    """They cross at right angles, and are 0.45 m apart at the samples around it."""
    limits = Limits(size=5.0, v_max=2.5, a_max=2.0)
    start = th.tensor([[[-4.0, 0.0], [0.0, -4.0]]], dtype=th.float64)
    problems = Problems.rest_to_rest(start, -start)
    samples = 20  # an even number: none in the middle
    certificate, basis = Certificate(limits, 12, samples), make_basis(12, samples)
    y = th.zeros(1, 2, 2, basis.n_modes, dtype=th.float64)
    assert judge(problems, y, basis, limits, finer=1)["pairs"].item() > 0.04
    assert judge(problems, y, basis, limits)["pairs"].item() < -0.3
    assert not certificate.certify(problems, y).safe.item()


@pytest.mark.parametrize("which", ["pair", "obstacle"])
def test_a_plan_with_five_centimeters_to_spare_is_certified(which: str) -> None:
    """Side by side, or past a disc, at 64 samples in 10 s; the limits are met by 5 % of the speed and acceleration."""
    limits = Limits(size=4.5, v_max=1.3, a_max=0.6)
    if which == "pair":
        start = th.tensor([[[-4.0, 0.0], [-4.0, 0.45]]], dtype=th.float64)
        obstacles = None
    else:
        start = th.tensor([[[-4.0, 0.0]]], dtype=th.float64)
        obstacles = th.tensor([[[0.0, 0.75, 0.5]]], dtype=th.float64)
    problems = Problems.rest_to_rest(start, start * th.tensor([-1.0, 1.0]), obstacles)
    certified = Certificate(limits).certify(problems, th.zeros(1, start.shape[1], 2, 7))
    assert certified.safe.item()
    # What is lost is the bow's height: less than h^2 / 8 * 2 * 0.6 m/s^2 = 4 mm.
    assert 0.046 < certified.margin.item() <= 0.05


def test_the_bow_of_a_chord_is_that_of_constant_acceleration() -> None:
    """
    A robot that turns back just before a wall of a disc: seen from the chord it would get no closer than at the samples. The
    certified distance is what the parabola through them has, to third order in the step.
    """
    limits = Limits(size=8.0, v_max=9.0, a_max=9.0)
    problems = Problems.rest_to_rest(
        th.tensor([[[-4.0, 0.0]]], dtype=th.float64),
        th.tensor([[[-4.0, 0.0]]], dtype=th.float64),
        th.tensor([[[4.0, 0.0, 0.5]]], dtype=th.float64),
    )
    y = th.zeros(1, 1, 2, 7, dtype=th.float64)
    y[0, 0, 0, 0] = 3.0  # there and back, with its turning point halfway: between two samples, as their number is even
    for samples in (32, 64, 128):
        basis = make_basis(12, samples)
        true = judge(problems, y, basis, limits)["obstacles"].item()
        at_samples = judge(problems, y, basis, limits, finer=1)["obstacles"].item()
        margin = Certificate(limits, 12, samples).certify(problems, y).margin.item()
        assert margin <= true
        assert true - margin < 0.05 * (at_samples - true)


def test_coefficients_of_pieces() -> None:
    """They give the polynomial at the ends of the pieces, and stay around it between."""
    degree, samples = 10, 12
    curve = th.randn(degree + 1, dtype=th.float64, generator=th.Generator().manual_seed(0))
    local = local_coefficients(degree, samples) @ curve
    at_samples = bernstein(degree, th.linspace(0, 1, samples, dtype=th.float64)) @ curve
    th.testing.assert_close(local[:, 0], at_samples[:-1], rtol=0, atol=1e-12)
    th.testing.assert_close(local[:, -1], at_samples[1:], rtol=0, atol=1e-12)
    for piece in range(samples - 1):  # the same polynomial
        u = th.linspace(piece / (samples - 1), (piece + 1) / (samples - 1), 30, dtype=th.float64)
        inside = bernstein(degree, th.linspace(0, 1, 30, dtype=th.float64)) @ local[piece]
        th.testing.assert_close(inside, bernstein(degree, u) @ curve, rtol=0, atol=1e-12)
        assert inside.max() <= local[piece].max() + 1e-12
        assert inside.min() >= local[piece].min() - 1e-12


def test_the_bound_of_the_acceleration_tightens_with_the_square_of_the_step() -> None:
    limits = Limits(a_max=50.0, v_max=50.0, size=50.0)
    problems = Problems.rest_to_rest(*th.zeros(2, 80, 1, 2, dtype=th.float64))
    y = th.randn(80, 1, 2, 7, dtype=th.float64, generator=th.Generator().manual_seed(3)) * 0.3
    curves = make_basis().coefficients(problems.boundary, y)[:, 0] @ differences(12, 2, 10.0).T
    fine = curves @ bernstein(10, th.linspace(0, 1, 10_001, dtype=th.float64)).T
    largest = fine.square().sum(dim=1).amax(dim=1).sqrt()
    errors = [
        limits.a_max - Certificate(limits, 12, samples).slacks(problems, y).acceleration - largest
        for samples in (33, 65, 129, 257)
    ]
    assert all((error >= -1e-6).all() for error in errors)
    means = np.array([error.mean() for error in errors])
    ratios = means[:-1] / means[1:]
    assert ((ratios > 3) & (ratios < 5.5)).all(), ratios


def test_padding_neither_pushes_nor_is_judged() -> None:
    limits = Limits()
    certificate = Certificate(limits)
    generator = th.Generator().manual_seed(0)
    problems = random_problems(200, 3, 2, generator)
    problems = problems._replace(robot_mask=th.ones(200, 3, dtype=th.bool), obstacle_mask=th.ones(200, 2, dtype=th.bool))
    y = 0.2 * th.randn(200, 3, 2, 7, dtype=th.float64, generator=generator)

    def pad(tensor: th.Tensor, value: float) -> th.Tensor:
        return th.cat([tensor, tensor.new_full((200, 2, *tensor.shape[2:]), value)], dim=1)

    padded = Problems(*(pad(tensor, False if tensor.dtype == th.bool else th.nan) for tensor in problems))
    for plain, with_padding in zip(certificate.slacks(problems, y), certificate.slacks(padded, pad(y, th.nan)), strict=True):
        th.testing.assert_close(plain, with_padding, rtol=0, atol=1e-12)


def test_a_lone_robot_has_all_the_margin_there_is() -> None:
    problems = Problems.rest_to_rest(th.zeros(1, 1, 3), th.ones(1, 1, 3))
    certified = Certificate(Limits(dimensions=3)).certify(problems, th.zeros(1, 1, 3, 7))
    assert certified.safe.item()
    assert certified.margin.item() == np.inf


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e38])
@pytest.mark.parametrize("what", ["plan", "start", "obstacle"])
def test_what_is_not_finite_is_not_safe(value: float, what: str) -> None:
    start = th.tensor([[[-4.0, 0.0], [4.0, 2.0]]])
    problems = Problems.rest_to_rest(start, start, th.tensor([[[0.0, 0.0, 0.3]]]))
    y = th.zeros(1, 2, 2, 7)
    certificate = Certificate(Limits())
    assert certificate.certify(problems, y).safe.item()
    {"plan": y, "start": problems.start, "obstacle": problems.obstacles}[what][0, 0, -1] = value
    certified = certificate.certify(problems, y)
    if what == "obstacle" and value == -np.inf:
        return  # a disc of radius minus infinity is met nowhere
    assert not certified.safe.item()
    assert not certified.margin.isnan().item()


def test_a_plan_of_another_shape_is_refused() -> None:
    problems = Problems.rest_to_rest(th.zeros(2, 1, 2), th.ones(2, 1, 2))
    with pytest.raises(ValueError, match=r"\(2, 1, 2, 5\); expected \(2, 1, 2, 7\)"):
        Certificate(Limits()).certify(problems, th.zeros(2, 1, 2, 5))
    with pytest.raises(ValueError, match="with 3 dimensions"):
        Certificate(Limits(dimensions=3)).certify(problems, th.zeros(2, 1, 2, 7))


def test_every_kind_of_row_is_judged() -> None:
    """One plan for each kind that breaks it and no other."""
    limits = Limits(size=5.0, v_max=1.4, a_max=0.7)
    lines = {
        "pairs": [[[-3.0, 0.0], [-3.0, 0.3]], [[3.0, 0.0], [3.0, 0.3]]],
        "obstacles": [[[-3.0, 0.0]], [[3.0, 0.0]]],
        "speed": [[[-4.9, 4.0]], [[4.9, 4.0]]],
        "acceleration": [[[-4.9, 0.0], [0.0, 3.0]], [[4.9, 0.0], [1.0, 3.0]]],
        "workspace": [[[4.0, 5.0]], [[4.0, 5.1]]],
    }
    for name, (start, goal) in lines.items():
        faster = {"speed": {"a_max": 9.0}, "acceleration": {"v_max": 9.0, "a_max": 0.6}}.get(name, {})
        own = Limits(**{**vars(limits), **faster})
        obstacles = th.tensor([[[0.0, 0.3 if name == "obstacles" else 4.9, 0.2]]])
        if name == "speed":
            obstacles[..., 1] = -4.9
        problems = Problems.rest_to_rest(th.tensor([start]), th.tensor([goal]), obstacles)
        certificate = Certificate(own)
        y = th.zeros(*problems.start.shape, 7)
        slacks = certificate.slacks(problems, y)
        broken = [kind for kind, slack in slacks._asdict().items() if slack.item() < 0]
        assert broken == [name], (name, slacks)
        assert not certificate.certify(problems, y).safe.item()
    assert set(lines) == set(Slacks._fields)
