"""
Adjoint matching on known fields, compared with closed forms: no network, no randomness.

The base is a Gaussian N(m, s^2), or a mixture of two. For affine fields everything is a matter of means and covariances, so
that a few points which have those of the noise exactly (``exact_noise``) take the place of many samples: numbers agree to
rounding, and a schedule shifted by one step, a missing factor of 2 or a Jacobian at the wrong time are seen. U1 .. U13 are
the tests that the method's specification lists.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import torch as th

from sb3_flow.common.flow import euler
from sb3_flow.qam.adjoint import (
    adjoint_matching_loss,
    control,
    lean_adjoint,
    memoryless_path,
    memoryless_std,
    path_and_control,
    path_divergence,
)

Field = Callable[[th.Tensor, th.Tensor], th.Tensor]


@pytest.fixture(autouse=True)
def double_precision() -> Iterator[None]:
    before = th.get_default_dtype()
    th.set_default_dtype(th.float64)
    th.manual_seed(0)
    yield
    th.set_default_dtype(before)


def slope(t: float | th.Tensor, s: float) -> float | th.Tensor:
    """``A(t)``"""
    return (t * s**2 - (1 - t)) / ((1 - t) ** 2 + t**2 * s**2)


def gaussian(m: float, s: float) -> Field:
    """The field that carries N(0, 1) to N(m, s^2)."""
    return lambda x, t: m + slope(t, s) * (x - t * m)


def factors(n_steps: int, s: float) -> list[float]:
    """U2: ``P_i``, by which the discrete adjoint at ``i`` differs from the one at the end."""
    h, result = 1 / n_steps, []
    for i in range(n_steps):
        product = 1.0
        for j in range(i, n_steps):
            product *= j / (j + 1) + 2 * h * slope((j + 1) * h, s)
        result.append(product)
    return result


def exact_noise(n_steps: int) -> th.Tensor:
    """``(T, 2 T, 1)``: points of mean 0 and identity covariance, exactly."""
    points = math.sqrt(n_steps) * th.eye(n_steps)
    return th.cat([points, -points], dim=1)[:, :, None]


class Affine:
    """``v(x, t_i) = a_i x + b_i``: the regressor of the specification, one line for each step."""

    def __init__(self, a: th.Tensor, b: th.Tensor) -> None:
        self.a, self.b = a.clone().requires_grad_(), b.clone().requires_grad_()

    @classmethod
    def of(cls, field: Field, n_steps: int) -> "Affine":
        """A field which is affine, in this form."""
        t = th.arange(n_steps)[:, None] / n_steps
        b = field(th.zeros(n_steps, 1), t)
        return cls((field(th.ones(n_steps, 1), t) - b).flatten(), b.flatten())

    def __call__(self, x: th.Tensor, t: th.Tensor) -> th.Tensor:
        i = (t * len(self.a)).round().long()
        return self.a[i] * x + self.b[i]

    def minimizer(self, base: Field, path: th.Tensor, adjoints: th.Tensor) -> "Affine":
        """Where the loss is least, given paths and adjoints: it is quadratic, so that one step of Newton's leads there."""
        loss = adjoint_matching_loss(control(self, base, path), adjoints).mean()
        both = (self.a, self.b)
        gradient = th.stack(th.autograd.grad(loss, both, create_graph=True))
        rows = [th.stack(th.autograd.grad(part.sum(), both, retain_graph=True)) for part in gradient]
        hessian = th.stack(rows).permute(2, 0, 1)  # steps do not mix
        move = th.linalg.solve(hessian, gradient.detach().T)
        return Affine(self.a.detach() - move[:, 0], self.b.detach() - move[:, 1])

    def moments(self, n_steps: int) -> tuple[float, float]:
        """Mean and standard deviation of what Euler's method makes of N(0, 1)."""
        with th.no_grad():
            low, high = euler(self, th.tensor([[-1.0], [1.0]]), n_steps).flatten().tolist()
        return (low + high) / 2, abs(high - low) / 2


@dataclass(frozen=True)
class Toy:
    """Base N(m, s^2), ``Q = c a - k a^2 / 2``; ``table``: the moments of U4, at T = 5, 10, 20, 50, 100, 400."""

    m: float
    s: float
    tau: float
    c: float
    k: float
    table: dict[int, tuple[float, float]]

    @property
    def base(self) -> Field:
        return gaussian(self.m, self.s)

    @property
    def tilted(self) -> tuple[float, float]:
        """Mean and standard deviation of the tilt."""
        precision = 1 / self.s**2 + self.tau * self.k
        return (self.m / self.s**2 + self.tau * self.c) / precision, 1 / math.sqrt(precision)

    def terminal(self, x: th.Tensor) -> th.Tensor:
        return -self.tau * (self.c - self.k * x)

    def round(self, field: Affine, n_steps: int) -> Affine:
        """Paths of a field, adjoints, and the field that these ask for: one round of adjoint matching."""
        with th.no_grad():
            path = memoryless_path(field, self.base, exact_noise(n_steps))
            adjoints = lean_adjoint(self.base, path, self.terminal(path[-1]))
        return field.minimizer(self.base, path, adjoints)

    def sweep(self, n_steps: int) -> Affine:
        """U4: the fixed point, by one backward sweep."""
        h, p, last = 1 / n_steps, factors(n_steps, self.s), n_steps - 1
        a, b = th.zeros(n_steps), th.zeros(n_steps)
        slope_end = const_end = 0.0  # E[x_T | x_{i+1}] = slope_end x_{i+1} + const_end
        for i in reversed(range(n_steps)):
            a_base = slope(i * h, self.s)
            b_base = self.m - a_base * i * h * self.m
            r, half_variance = i / (i + 1), (n_steps - i + 1) / (i + 1)
            gain = half_variance * p[i] * self.tau
            if i == last:
                slope_end, const_end = 1 + h * a_base, h * b_base
                a[i] = a_base - gain * self.k * slope_end
                b[i] = b_base + gain * (self.c - self.k * const_end)
                continue
            kappa = gain * self.k * slope_end
            a[i] = (a_base - kappa * r) / (1 + 2 * h * kappa)
            b[i] = (b_base + gain * (self.c - self.k * const_end)) / (1 + 2 * h * kappa)
            const_end += slope_end * 2 * h * b[i].item()
            slope_end *= r + 2 * h * a[i].item()
        return Affine(a, b)


def table(*moments: str) -> dict[int, tuple[float, float]]:
    values = (tuple(map(float, pair.split("/"))) for pair in moments)
    return dict(zip((5, 10, 20, 50, 100, 400), values, strict=True))


TOYS = [
    Toy(0, 1, 1, 0.5, 0, table(".3815/.7705", ".4396/.8790", ".4583/.9377", ".4752/.9746", ".4842/.9872", ".4943/.9968")),
    Toy(0, 0.5, 1, 1, 0, table(".2822/.3692", ".2617/.4308", ".2529/.4642", ".2490/.4854", ".2486/.4926", ".2492/.4982")),
    Toy(0.2, 0.3, 1, 2, 0, table(".4483/.1999", ".4127/.2469", ".3952/.2724", ".3852/.2887", ".3822/.2943", ".3804/.2986")),
    Toy(0, 1, 1, 0, 1, table("0/.5479", "0/.6280", "0/.6677", "0/.6915", "0/.6994", "0/.7052")),
    Toy(0, 0.5, 1, 2, 4, table(".2967/.1998", ".2486/.2903", ".2426/.3231", ".2442/.3416", ".2462/.3476", ".2487/.3521")),
    Toy(0.2, 0.3, 5, 1, 2, table(".4901/.0079", ".3608/.1527", ".3443/.1888", ".3409/.2066", ".3410/.2122", ".3416/.2163")),
]


def test_schedule() -> None:
    """4.4, at T = 10, and U13 at T = 1."""
    expected = [22, 10, 6, 4, 2.8, 2, 10 / 7, 1, 2 / 3, 0.4]
    assert [sigma**2 for sigma in memoryless_std(10)] == pytest.approx(expected, rel=1e-12)
    assert memoryless_std(1) == [2.0]


# The adjoint.


def test_discrete_adjoint() -> None:
    """U2: ``g_i = P_i g_T``, exactly, wherever the path runs; the sign changes at the start, as it must."""
    published = [-0.0031, 0.0145, 0.0537, 0.1270, 0.2541, 0.4537, 0.7164, 0.9688, 1.1072, 1.1000]
    assert factors(10, 0.5) == pytest.approx(published, abs=5e-5)
    path, terminal = th.randn(11, 6, 3), th.randn(6, 3)
    adjoints = lean_adjoint(gaussian(0.2, 0.5), path, terminal)
    assert adjoints.shape == (10, 6, 3) and not adjoints.requires_grad
    for adjoint, factor in zip(adjoints, factors(10, 0.5), strict=True):
        th.testing.assert_close(adjoint, factor * terminal, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("s", [0.3, 0.5, 1.0, 2.0])
def test_continuous_adjoint(s: float) -> None:
    """U1: as T grows, ``g_t`` becomes ``t s^2 / v_t`` times ``g_1``, and the error falls as 1 / T."""
    errors = []
    for n_steps in (200, 400):
        terminal = th.ones(1, 1)
        adjoints = lean_adjoint(gaussian(0.0, s), th.zeros(n_steps + 1, 1, 1), terminal).flatten()
        t = th.arange(n_steps) / n_steps
        errors.append((adjoints - t * s**2 / ((1 - t) ** 2 + t**2 * s**2)).abs().max().item())
    assert errors[1] < 0.02
    assert errors[1] / errors[0] == pytest.approx(0.5, abs=0.1)


def test_adjoint_of_a_field_that_is_not_symmetric() -> None:
    """``v = W x``: the Jacobian is transposed (pitfall 3)."""
    w = th.randn(3, 3)
    adjoint = terminal = th.randn(5, 3)
    found = lean_adjoint(lambda x, t: x @ w.T, th.randn(7, 5, 3), terminal)
    for i in reversed(range(6)):
        adjoint = i / (i + 1) * adjoint + 2 / 6 * adjoint @ w  # row vectors: g^T W = (W^T g)^T
        th.testing.assert_close(found[i], adjoint, rtol=1e-12, atol=1e-14)


def test_where_the_jacobian_is_taken() -> None:
    """``v = t^2 sin(W x)``: at the earlier point, and at the later time (pitfall 4)."""
    w, path = th.randn(3, 3), th.randn(7, 5, 3)
    adjoint = terminal = th.randn(5, 3)
    found = lean_adjoint(lambda x, t: t**2 * th.sin(x @ w.T), path, terminal)
    for i in reversed(range(6)):
        later, pulled_back = (i + 1) / 6, th.zeros(5, 3)
        for b in range(5):
            jacobian = later**2 * th.diag(th.cos(w @ path[i, b])) @ w
            pulled_back[b] = jacobian.T @ adjoint[b]
        adjoint = i / (i + 1) * adjoint + 2 / 6 * pulled_back
        th.testing.assert_close(found[i], adjoint, rtol=1e-12, atol=1e-14)


# Paths.


def test_a_path() -> None:
    """4.4, step by step: twice the field less x / (t + h), noise but in the last step, which is the base's; never clipped."""
    n, h, noise, times = 4, 0.25, 3 * th.randn(4, 5, 2), []

    def velocity(x: th.Tensor, t: th.Tensor) -> th.Tensor:
        assert t.shape == (5, 1) and (t == t[0]).all()
        times.append(t[0].item())
        return 2 + th.sin(3 * x) + t

    path = memoryless_path(velocity, lambda x, t: -x + 7 * t, noise)
    assert path.shape == (5, 5, 2) and times == [0, 0.25, 0.5]
    x = noise[0]
    for i in range(n - 1):
        th.testing.assert_close(path[i], x, rtol=1e-12, atol=1e-12)
        drift = 2 * (2 + th.sin(3 * x) + i * h) - x / ((i + 1) * h)
        x = x + h * drift + math.sqrt(h * 2 * (1 - i * h + h) / (i * h + h)) * noise[i + 1]
    th.testing.assert_close(path[n - 1], x, rtol=1e-12, atol=1e-12)
    th.testing.assert_close(path[n], x + h * (-x + 7 * 0.75), rtol=1e-12, atol=1e-12)
    assert path.abs().max().item() > 3


def test_variances_along_paths() -> None:
    """U5: of the base's own paths at T = 10; where they end has next to nothing to do with where they began."""
    field = gaussian(0.0, 0.5)
    path = memoryless_path(field, field, exact_noise(10))[:, :, 0]
    expected = [1, 2.24, 1.1815, 0.8245, 0.6112, 0.4649, 0.3637, 0.2999, 0.2720, 0.2816, 0.3157]
    assert path.var(dim=1, correction=0).tolist() == pytest.approx(expected, abs=5e-5)
    for n_steps in (10, 50):
        for s in (0.3, 0.5, 1.0):
            field = gaussian(0.3, s)
            path = memoryless_path(field, field, exact_noise(n_steps))[:, :, 0]
            assert th.corrcoef(path[[0, -1]])[0, 1].abs().item() < 0.02


@pytest.mark.parametrize("s", [0.3, 0.5, 1.0])
def test_paths_keep_the_marginals(s: float) -> None:
    """As T grows, the paths of a flow have its variance at every time from t = 0.1 on (before, the shifted schedule adds)."""
    errors = []
    for n_steps in (100, 400):
        field = gaussian(0.3, s)
        path = memoryless_path(field, field, exact_noise(n_steps))[:, :, 0]
        t = th.arange(n_steps + 1) / n_steps
        exact = (1 - t) ** 2 + t**2 * s**2
        th.testing.assert_close(path.mean(dim=1), t * 0.3, rtol=0, atol=0.02)
        errors.append((path.var(dim=1, correction=0) / exact - 1).abs()[n_steps // 10 :].max().item())
    assert errors[1] < 0.1 and errors[1] < errors[0] / 3


# The regression, and its fixed point.


@pytest.mark.parametrize("n_steps", [1, 5, 10, 200])
def test_linear_values(n_steps: int) -> None:
    """U3: the field asked for is the base and ``sigma_i^2 / 2 P_i tau c``, after one regression, wherever it starts."""
    toy = Toy(0.1, 0.5, 2.0, 0.5, 0.0, {})
    base = Affine.of(toy.base, n_steps)
    found = toy.round(base if n_steps == 200 else Affine(th.randn(n_steps), th.randn(n_steps)), n_steps)
    shift = th.tensor([(n_steps - i + 1) / (i + 1) * p for i, p in enumerate(factors(n_steps, 0.5))])
    th.testing.assert_close(found.a, base.a, rtol=0, atol=1e-9)
    th.testing.assert_close(found.b, base.b + shift, rtol=0, atol=1e-9)
    if n_steps == 10:
        published = [-0.0343, 0.0723, 0.1611, 0.2541, 0.3557, 0.4537, 0.5117, 0.4844, 0.3691, 0.2200]
        assert shift.tolist() == pytest.approx(published, abs=5e-5)
    if n_steps == 200:
        t = th.arange(n_steps) / n_steps
        continuous = 0.25 * (1 - t) / ((1 - t) ** 2 + t**2 * 0.25)
        th.testing.assert_close(shift[20:], continuous[20:], rtol=0, atol=0.02)


@pytest.mark.parametrize("toy", TOYS, ids=lambda toy: f"m{toy.m} s{toy.s} tau{toy.tau} c{toy.c} k{toy.k}")
def test_fixed_point(toy: Toy) -> None:
    """U4: what the backward sweep gives is asked for by its own paths, and its samples have the moments of the table."""
    distances = {}
    for n_steps, moments in toy.table.items():
        field = toy.sweep(n_steps)
        asked = toy.round(field, n_steps)
        th.testing.assert_close(asked.a, field.a, rtol=1e-6, atol=1e-7)
        th.testing.assert_close(asked.b, field.b, rtol=1e-6, atol=1e-7)
        assert asked.moments(n_steps) == pytest.approx(moments, abs=6e-5)
        distances[n_steps] = math.dist(field.moments(n_steps), toy.tilted)
    # The bias falls as T grows; at the published T = 10 it is no error of ours.
    assert distances[400] < 0.01 < distances[10]
    assert distances[400] < distances[100] < distances[20] < distances[5]


@pytest.mark.slow
@pytest.mark.parametrize("n_steps", [5, 10, 20])
@pytest.mark.parametrize("toy", TOYS, ids=lambda toy: f"m{toy.m} s{toy.s} tau{toy.tau} c{toy.c} k{toy.k}")
def test_rounds_lead_to_the_fixed_point(toy: Toy, n_steps: int) -> None:
    """Adjoint matching from the base on, each time half of the way to what is asked for."""
    field = Affine.of(toy.base, n_steps)
    for _ in range(60):
        asked = toy.round(field, n_steps)
        field = Affine((field.a + asked.a).detach() / 2, (field.b + asked.b).detach() / 2)
    expected = toy.sweep(n_steps)
    th.testing.assert_close(field.a, expected.a, rtol=0, atol=1e-4)
    th.testing.assert_close(field.b, expected.b, rtol=0, atol=1e-4)
    assert field.moments(n_steps) == pytest.approx(toy.table[n_steps], abs=1e-3)


def test_no_temperature() -> None:
    """U7: with ``g = 0``, the loss is ``sum 4 / sigma_i^2 |v - base|^2``, the least at the base."""
    toy, shift = Toy(0.1, 0.5, 0.0, 1.0, 1.0, {}), th.linspace(0.5, 1.5, 10)
    base = Affine.of(toy.base, 10)
    path = memoryless_path(base, toy.base, exact_noise(10)).detach()
    adjoints = lean_adjoint(toy.base, path, toy.terminal(path[-1]))
    assert not adjoints.any()
    assert adjoint_matching_loss(control(base, toy.base, path), adjoints).abs().max().item() < 1e-20
    shifted = Affine(base.a.detach(), base.b.detach() + shift)
    loss = adjoint_matching_loss(control(shifted, toy.base, path), adjoints)
    expected = sum(4 * (i + 1) / (2 * (10 - i + 1)) * shift[i].item() ** 2 for i in range(10))
    th.testing.assert_close(loss, th.full((20,), expected))
    found = toy.round(Affine(th.zeros(10), th.zeros(10)), 10)
    th.testing.assert_close(found.a, base.a, rtol=0, atol=1e-10)
    th.testing.assert_close(found.b, base.b, rtol=0, atol=1e-10)


def test_gradient_at_the_base() -> None:
    """Pitfall 2: there it is ``4 g_i``, the noise's strength cancels; descent moves the field up Q."""
    path, adjoints = th.randn(11, 6, 3), th.randn(10, 6, 3)
    moved = th.zeros(60, 3, requires_grad=True)
    base = gaussian(0.2, 0.5)
    loss = adjoint_matching_loss(control(lambda x, t: base(x, t) + moved, base, path), adjoints)
    (gradient,) = th.autograd.grad(loss.sum(), moved)
    th.testing.assert_close(gradient, 4 * adjoints.flatten(end_dim=1), rtol=1e-12, atol=1e-12)


def test_the_base_gets_no_gradient() -> None:
    """Paths and adjoints have no gradient either; only the trained field has one."""
    w, path, adjoints = th.randn(3, 3, requires_grad=True), th.randn(5, 6, 3), th.randn(4, 6, 3)
    v = th.randn(3, 3, requires_grad=True)
    adjoint_matching_loss(control(lambda x, t: x @ v, lambda x, t: x @ w, path), adjoints).sum().backward()
    assert w.grad is None and v.grad.abs().max().item() > 0


@pytest.mark.parametrize("n_steps", [1, 2, 5])
def test_path_and_control(n_steps: int) -> None:
    """They are those of the two functions, with their gradient, from one evaluation of each velocity per point."""
    v, w, noise = th.randn(3, 3, requires_grad=True), th.randn(3, 3, requires_grad=True), th.randn(n_steps, 6, 3)
    times: dict[str, list[float]] = {"velocity": [], "base": []}

    def field(name: str, weight: th.Tensor) -> Field:
        def evaluated(x: th.Tensor, t: th.Tensor) -> th.Tensor:
            times[name] += t.unique().tolist()
            return th.sin(x @ weight) + t

        return evaluated

    path, u = path_and_control(field("velocity", v), field("base", w), noise)
    assert times["velocity"] == times["base"] == pytest.approx([i / n_steps for i in range(n_steps)])
    assert not path.requires_grad
    with th.no_grad():
        expected = memoryless_path(field("velocity", v), field("base", w), noise)
    th.testing.assert_close(path, expected, rtol=1e-12, atol=1e-12)
    controls = control(field("velocity", v), field("base", w), expected)
    th.testing.assert_close(u, controls, rtol=1e-12, atol=1e-12)
    gradients = [th.autograd.grad(each.square().sum(), [v, w], allow_unused=True) for each in (u, controls)]
    th.testing.assert_close(gradients[0][0], gradients[1][0], rtol=1e-12, atol=1e-12)
    assert gradients[0][1] is gradients[1][1] is None and gradients[0][0].abs().max().item() > 0


@pytest.mark.parametrize("temperature", [0.04, 3.0])
def test_temperature(temperature: float) -> None:
    """The trust region's loss is the plain one of adjoints divided by the temperature, times the temperature."""
    u, adjoints = th.randn(10, 6, 3), th.randn(10, 6, 3)
    loss = adjoint_matching_loss(u, adjoints, th.tensor(temperature))
    th.testing.assert_close(loss, temperature * adjoint_matching_loss(u, adjoints / temperature), rtol=1e-12, atol=0)


def test_divergence_of_paths() -> None:
    """
    The mean over paths of the logarithm of how much likelier the field makes them than the base does, which is a product of
    Gaussian densities. (Its last step adds no noise, so that its share has no such density: the two fields agree there.)
    """
    n_steps, n, base = 10, 20_000, gaussian(0.2, 0.5)
    h, sigma = 1 / n_steps, memoryless_std(n_steps)

    def field(x: th.Tensor, t: th.Tensor) -> th.Tensor:
        return base(x, t) + (t < 0.85) * (0.3 - 0.2 * x)

    path = memoryless_path(field, base, th.randn(n_steps, n, 1, generator=th.Generator().manual_seed(0)))
    ratio = th.zeros(n)
    for i in range(n_steps - 1):
        x, t, densities = path[i], th.full((n, 1), i * h), []
        for v in (field, base):
            mean = x + h * (2 * v(x, t) - x / (i * h + h))
            densities.append(th.distributions.Normal(mean, h**0.5 * sigma[i]).log_prob(path[i + 1])[:, 0])
        ratio += densities[0] - densities[1]
    divergence = path_divergence(control(field, base, path))
    error = ((ratio - divergence).std() / n**0.5).item()
    assert divergence.mean().item() == pytest.approx(ratio.mean().item(), abs=4 * error)
    assert 0.05 > 4 * error and divergence.mean().item() > 0.05


def test_one_step() -> None:
    """U13: T = 1. The path is one step of the base, and ``P_0 = 2 A(1) = 2``: nothing is seen of a tilt's spread."""
    base, noise = gaussian(0.3, 0.5), th.randn(1, 6, 2)
    path = memoryless_path(lambda x, t: pytest.fail("the field has no say"), base, noise)
    th.testing.assert_close(path, th.stack([noise[0], noise[0] + base(noise[0], th.zeros(6, 1))]))
    terminal = th.randn(6, 2)
    th.testing.assert_close(lean_adjoint(base, path, terminal), 2 * terminal[None])
    field = Affine(th.tensor([0.5]), th.tensor([0.2]))
    assert field.moments(1) == pytest.approx((0.2, 1.5))  # z + f(z, 0)


# Two modes.


class Mixture:
    """``w`` N(-1/2, s^2) + (1 - w) N(1/2, s^2)"""

    means = (-0.5, 0.5)

    def __init__(self, weight: float, s: float) -> None:
        self.weights, self.s = (weight, 1 - weight), s

    def __call__(self, x: th.Tensor, t: th.Tensor) -> th.Tensor:
        variance = (1 - t) ** 2 + t**2 * self.s**2
        logits = [math.log(w) - (x - t * m) ** 2 / (2 * variance) for w, m in zip(self.weights, self.means, strict=True)]
        responsibilities = th.softmax(th.stack(logits), dim=0)
        return sum(r * gaussian(m, self.s)(x, t) for r, m in zip(responsibilities, self.means, strict=True))


class PiecewiseLinear:
    """A base field, and for each step a function through values at knots."""

    knots = th.linspace(-4, 4, 33, dtype=th.float64)

    def __init__(self, base: Field, n_steps: int) -> None:
        self.base, self.values = base, th.zeros(n_steps, len(self.knots), requires_grad=True)

    def __call__(self, x: th.Tensor, t: th.Tensor) -> th.Tensor:
        i = (t * len(self.values)).round().long()[:, 0]
        return self.base(x, t) + (self.hats(x) * self.values[i]).sum(dim=1, keepdim=True)

    def hats(self, x: th.Tensor) -> th.Tensor:
        """``(n, knots)``: the weights of the two knots beside each point."""
        width = self.knots[1] - self.knots[0]
        return (1 - (x.clamp(-4, 4) - self.knots).abs() / width).clamp(min=0)


@pytest.mark.slow
@pytest.mark.parametrize(("c", "mass", "mean"), [(1.0, 0.5647, 0.1149), (2.0, 0.7518, 0.4064)])
def test_mixture(c: float, mass: float, mean: float) -> None:
    """
    U6: a base with .7 and .3 at -1/2 and 1/2, s = .3, is weighed anew: at T = 10, and for linear values, by the numbers of the
    specification (its limits are .5645 and .7854). A method that moves each sample would keep .3 on the right.
    """
    base, n_steps, generator = Mixture(0.7, 0.3), 10, th.Generator().manual_seed(0)
    field = PiecewiseLinear(base, n_steps)
    sigma = th.tensor(memoryless_std(n_steps))
    for round_ in range(40):
        noise = th.randn(n_steps, 1000, 1, generator=generator)
        with th.no_grad():
            path = memoryless_path(field, base, noise)
            adjoints = lean_adjoint(base, path, th.full((1000, 1), -c))
        loss = adjoint_matching_loss(control(field, base, path), adjoints).mean()
        (gradient,) = th.autograd.grad(loss, field.values)
        with th.no_grad():
            for i in range(n_steps):
                hats = field.hats(path[i])
                hessian = 8 / sigma[i] ** 2 * (hats.T @ hats / len(hats) + 1e-5 * th.eye(len(field.knots)))
                field.values[i] -= 2 / (round_ + 4) * th.linalg.solve(hessian, gradient[i])
    z = th.special.ndtri((th.arange(4000) + 0.5) / 4000)[:, None]
    with th.no_grad():
        start, end = euler(base, z, n_steps), euler(field, z, n_steps)
    assert (start > 0).double().mean().item() == pytest.approx(0.3, abs=0.01)
    assert (end > 0).double().mean().item() == pytest.approx(mass, abs=0.01)
    assert end.mean().item() == pytest.approx(mean, abs=0.01)
