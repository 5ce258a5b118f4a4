"""Modal coordinates: exact boundary conditions, and numbers that were worked out elsewhere."""

import numpy as np
import pytest
import torch as th

from sb3_flow.planning.basis import bernstein, make_basis


@pytest.mark.parametrize("degree", [10, 12])
def test_any_coordinates_meet_the_boundary_conditions(degree: int) -> None:
    basis = make_basis(degree, 40, 7.0)
    rng = th.Generator().manual_seed(0)
    boundary, y = (th.randn(50, size, generator=rng, dtype=th.float64) for size in (6, basis.n_modes))
    values = basis.derivatives @ basis.coefficients(boundary, y).T  # (3, S, 50)
    met = th.cat([values[:, 0], values[:, -1]]).T
    th.testing.assert_close(met, boundary, rtol=0, atol=1e-9)
    for order in range(3):
        line, modes = basis.sampled(order)
        th.testing.assert_close(boundary @ line.T + y @ modes.T, values[order].T, rtol=0, atol=1e-9)


def test_bernstein_polynomials_sum_to_one_and_have_the_right_derivatives() -> None:
    u = th.linspace(0, 1, 30, dtype=th.float64)
    th.testing.assert_close(bernstein(9, u).sum(dim=1), th.ones_like(u), rtol=0, atol=1e-12)
    curve = th.randn(10, dtype=th.float64, generator=th.Generator().manual_seed(1))
    for order in (1, 2):
        before, after = (bernstein(9, u + step, order - 1, 3.0) @ curve for step in (-1e-6, 1e-6))
        slope = (after - before) / (2e-6 * 3.0)  # seconds: the horizon is 3
        np.testing.assert_allclose((bernstein(9, u, order, 3.0) @ curve)[1:-1], slope[1:-1], rtol=1e-5, atol=1e-5)


def test_modes_are_orthonormal_and_costs_add_up() -> None:
    basis = make_basis(12, 20_001, 10.0)
    _, modes = basis.sampled()
    identity = th.eye(7, dtype=th.float64)
    th.testing.assert_close(modes.T @ modes / basis.samples, identity, rtol=0, atol=1e-3)
    line, bending = basis.sampled(2)
    rng = th.Generator().manual_seed(0)
    boundary, y = (th.randn(5, size, generator=rng, dtype=th.float64) for size in (6, 7))

    def mean(x: th.Tensor) -> th.Tensor:
        """Over time, by the trapezoidal rule."""
        return th.trapezoid(x, dim=-1) / (x.shape[-1] - 1)

    whole = mean((boundary @ line.T + y @ bending.T).square())
    parts = mean((boundary @ line.T).square()) + (basis.stiffness * y.square()).sum(dim=1)
    th.testing.assert_close(whole, parts, rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("degree", "stiffness", "straight"),
    [
        (10, [0.0550, 0.4319, 1.623, 4.394, 9.688], (1.570, 6.41, 13.09)),
        (12, [0.0533, 0.4116, 1.562, 4.372, 9.681, 19.13, 35.06], (1.515, 6.53, 12.69)),
    ],
)
def test_stiffness_and_the_straight_line(degree: int, stiffness: list[float], straight: tuple[float, ...]) -> None:
    """In 10 s; and the straight line's peak speed, peak acceleration and mean square acceleration, for 1 m in 1 s."""
    np.testing.assert_allclose(make_basis(degree).stiffness, stiffness, rtol=2e-3)
    basis = make_basis(degree, 20_001, 1.0)
    speed, acceleration = (basis.sampled(order)[0][:, 3] - basis.sampled(order)[0][:, 0] for order in (1, 2))
    speed, acceleration = speed / 2, acceleration / 2  # from -1/2 to 1/2
    got = (speed.max().item(), acceleration.abs().max().item(), acceleration.square().mean().item())
    np.testing.assert_allclose(got, straight, rtol=3e-3)


def test_arguments_out_of_range() -> None:
    with pytest.raises(ValueError, match="`degree` is 5"):
        make_basis(5)
    with pytest.raises(ValueError, match="`samples` is 1"):
        make_basis(12, 1)
