"""Flow matching and Euler's method against closed forms: Gaussians and point masses, whose optimal fields are known."""

import math

import numpy as np
import pytest
import torch as th

from sb3_flow.common.flow import euler, flow_matching_loss, interpolate
from sb3_flow.common.type_aliases import Velocity

MEAN = 0.2
#: Standard deviation on arrival after N Euler steps from N(0, 1), computed by hand from the product below.
SHRINKAGE = {
    1.0: {1: 0.0, 5: 0.7705, 10: 0.8790, 20: 0.9377, 50: 0.9746, 100: 0.9872},
    0.5: {1: 0.0, 5: 0.3692, 10: 0.4308, 20: 0.4642, 50: 0.4854, 100: 0.4926},
    0.3: {1: 0.0, 5: 0.1999, 10: 0.2469, 20: 0.2724, 50: 0.2887, 100: 0.2943},
    0.1: {1: 0.0, 5: 0.0360, 10: 0.0617, 20: 0.0796, 50: 0.0914, 100: 0.0956},
}
CASES = [(s, n, value) for s, row in SHRINKAGE.items() for n, value in row.items()]


def slope(t: float, s: float) -> float:
    """A(t) of the optimal field for N(m, s^2): v(x, t) = m + A(t) (x - t m)."""
    return (t * s**2 - (1 - t)) / ((1 - t) ** 2 + t**2 * s**2)


def gaussian_field(mean: float, s: float) -> Velocity:
    def velocity(x: th.Tensor, t: th.Tensor) -> th.Tensor:
        a = (t * s**2 - (1 - t)) / ((1 - t) ** 2 + t**2 * s**2)
        return mean + a * (x - t * mean)

    return velocity


def atoms_field(atoms: np.ndarray, weights: np.ndarray) -> Velocity:
    """The optimal field for point masses in one dimension: E[x_1 - x_0 | x_t = x] by Bayes' rule."""

    def velocity(x: th.Tensor, t: th.Tensor) -> th.Tensor:
        result = np.empty((len(x), 1))
        for i, (point, time) in enumerate(zip(x[:, 0].tolist(), t[:, 0].tolist(), strict=True)):
            logits = np.log(weights) - (point - time * atoms) ** 2 / (2 * (1 - time) ** 2)
            posterior = np.exp(logits - logits.max())
            posterior /= posterior.sum()
            result[i, 0] = posterior @ ((atoms - point) / (1 - time))
        return th.from_numpy(result)

    return velocity


@pytest.mark.parametrize(("s", "n_steps", "shrunk"), CASES)
def test_euler_on_gaussians(s: float, n_steps: int, shrunk: float) -> None:
    """T1: with the optimal field, N Euler steps map z to m + s_N z, s_N = prod (1 + A(i/N) / N): each row of the table."""
    z = th.tensor([[-1.5], [0.0], [0.3], [2.0]], dtype=th.float64)
    product = math.prod(1 + slope(i / n_steps, s) / n_steps for i in range(n_steps))
    arrived = euler(gaussian_field(MEAN, s), z, n_steps)
    th.testing.assert_close(arrived, MEAN + product * z, rtol=0, atol=1e-12)
    spread = (arrived[3] - arrived[0]) / (z[3] - z[0])
    assert spread.item() == pytest.approx(shrunk, abs=5.1e-5)


def test_euler_approaches_the_exact_map() -> None:
    """T1: the exact flow map is z -> m + s z; the error of Euler's method halves when the number of steps doubles."""
    z = th.tensor([[1.0]], dtype=th.float64)
    errors = [abs(euler(gaussian_field(MEAN, 0.5), z, n).item() - (MEAN + 0.5)) for n in (200, 400, 800)]
    assert errors[2] < 2e-3
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.05)
    assert errors[1] / errors[2] == pytest.approx(2, rel=0.05)


@pytest.mark.parametrize("n_steps", [1, 4, 10])
def test_times_of_euler(n_steps: int) -> None:
    """Time runs from noise (0) to data (1) over i / N, i = 0 .. N - 1; the field is never asked at t = 1."""
    times: list[th.Tensor] = []

    def velocity(x: th.Tensor, t: th.Tensor) -> th.Tensor:
        times.append(t)
        return t.expand_as(x)

    arrived = euler(velocity, th.zeros(3, 2, dtype=th.float64), n_steps)
    assert len(times) == n_steps
    for i, t in enumerate(times):
        assert t.shape == (3, 1)
        th.testing.assert_close(t, th.full((3, 1), i / n_steps, dtype=th.float64), rtol=0, atol=1e-15)
    # sum over i of (i / N) / N
    th.testing.assert_close(arrived, th.full((3, 2), (n_steps - 1) / (2 * n_steps), dtype=th.float64))


@pytest.mark.parametrize("n_steps", [0, -1])
def test_a_flow_has_steps(n_steps: int) -> None:
    """Without any, actions would be noise."""
    with pytest.raises(ValueError, match=f"The number of steps of the flow is {n_steps}; it must be at least 1"):
        euler(lambda x, t: x, th.zeros(1, 1), n_steps)


def test_one_step_gives_the_mean() -> None:
    """T2: for any data, z + v(z, 0) = E[a]: one step of the optimal field forgets the noise."""
    atoms, weights = np.array([-0.7, 0.1, 0.9]), np.array([0.5, 0.2, 0.3])
    z = th.linspace(-2, 2, 9, dtype=th.float64)[:, None]
    th.testing.assert_close(euler(atoms_field(atoms, weights), z, 1), th.full_like(z, float(atoms @ weights)))


def test_many_steps_keep_the_modes() -> None:
    """The flow of point masses ends at the masses, in their proportions (the exact transport map is monotone)."""
    atoms, weights = np.array([-0.7, 0.1, 0.9]), np.array([0.5, 0.2, 0.3])
    quantiles = (th.arange(200, dtype=th.float64) + 0.5) / 200
    z = th.special.ndtri(quantiles)[:, None]
    arrived = euler(atoms_field(atoms, weights), z, 100)[:, 0].numpy()
    nearest = np.abs(arrived[:, None] - atoms).argmin(axis=1)
    assert np.abs(arrived - atoms[nearest]).max() < 0.02
    assert np.bincount(nearest, minlength=3) / 200 == pytest.approx(weights, abs=0.02)


def test_interpolate() -> None:
    """x_t = (1 - t) x_0 + t x_1, with noise at t = 0 and data at t = 1, one time for each sample."""
    x0, x1 = th.tensor([[1.0, -2.0]] * 3), th.tensor([[5.0, 2.0]] * 3)
    t = th.tensor([[0.0], [0.25], [1.0]])
    expected = th.tensor([[1.0, -2.0], [2.0, -1.0], [5.0, 2.0]])
    th.testing.assert_close(interpolate(x0, x1, t), expected, rtol=0, atol=0)


def test_flow_matching_loss() -> None:
    """|v(x_t, t) - (x_1 - x_0)|^2 as a mean over dimensions (not a sum), one value a sample: by hand."""
    x0, x1 = th.tensor([[0.0, 0.0], [1.0, 2.0]]), th.tensor([[1.0, -1.0], [3.0, 2.0]])
    t = th.tensor([[0.5], [0.25]])

    def velocity(x: th.Tensor, t: th.Tensor) -> th.Tensor:
        return x + 2 * t

    # Row 1: x_t = (.5, -.5), v = (1.5, .5), target (1, -1), errors (.5, 1.5).
    # Row 2: x_t = (1.5, 2), v = (2, 2.5), target (2, 0), errors (0, 2.5).
    expected = th.tensor([(0.25 + 2.25) / 2, 6.25 / 2])
    th.testing.assert_close(flow_matching_loss(velocity, x0, x1, t), expected)


def test_optimal_field_has_no_gradient_of_loss() -> None:
    """The conditional loss is smallest at v = E[x_1 - x_0 | x_t]: shifting or scaling the optimal field makes it worse."""
    generator = th.Generator().manual_seed(0)
    x0 = th.randn(200_000, 1, generator=generator, dtype=th.float64)
    x1 = MEAN + 0.5 * th.randn(200_000, 1, generator=generator, dtype=th.float64)
    t = th.rand(200_000, 1, generator=generator, dtype=th.float64)
    change = th.tensor([0.0, 1.0, 1.0], dtype=th.float64, requires_grad=True)

    def velocity(x: th.Tensor, t: th.Tensor) -> th.Tensor:
        a = (t * 0.25 - (1 - t)) / ((1 - t) ** 2 + t**2 * 0.25)
        return change[0] + change[1] * MEAN + change[2] * a * (x - t * MEAN)

    flow_matching_loss(velocity, x0, x1, t).mean().backward()
    assert change.grad is not None
    assert change.grad.abs().max().item() < 0.01
