"""
RQL against a second implementation, written out slowly in float64, against the published layout of batches, and closed forms.

``Reference`` shares no code with the package, see ``transcription.py``.
"""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch as th
from conformance.environments import AnySpaces
from gymnasium import spaces
from transcription import BATCH, Draw, Transcription, assert_single_precision, box_env, parameters_of, shake

from sb3_flow import RQL
from sb3_flow.common import networks
from sb3_flow.common.data.batches import concatenate
from sb3_flow.common.data.dataset import OfflineDataset
from sb3_flow.common.data.offline_buffer import OfflineBuffer
from sb3_flow.common.data.online_buffer import OnlineBuffer
from sb3_flow.common.flow import euler
from sb3_flow.common.type_aliases import Batch
from sb3_flow.rql import RQLPolicy
from sb3_flow.rql.reversal import reverse
from sb3_flow.rql.rql import RQLNoise

TARGETS = {"critic_target": "critic", "actor_average": "actor"}


@pytest.fixture(autouse=True)
def size_of_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors as small as here would take PyTorch's GELU; compare the fast one."""
    monkeypatch.setattr(networks, "SMALL", 0)


def make_model(action_dim: int = 2, n_critics: int = 3, env: Any = None, **kwargs: Any) -> RQL:
    policy_kwargs = {"net_arch": (24, 16), "n_critics": n_critics, **kwargs.pop("policy_kwargs", {})}
    env = env or box_env(action_dim=action_dim)
    return RQL("FlowPolicy", env, policy_kwargs=policy_kwargs, device="cpu", **{"seed": 0, **kwargs})


# The second implementation.


@dataclass
class Variant:
    action_dim: int = 2
    horizon_length: int = 1
    alpha: float = 2.5
    expectile: float = 0.7
    rho: float = 0.5
    flow_steps: int = 10
    ema: float = 0.999
    n_critics: int = 3
    n_steps: int = 1
    gamma: float = 0.99
    tau: float = 0.005
    learning_rate: float = 3e-4

    @property
    def dim(self) -> int:
        """Size of a chunk of actions."""
        return self.action_dim * self.horizon_length

    def model(self) -> RQL:
        model = make_model(**asdict(self))
        shake(model, 0.3)
        return model


VARIANTS = {
    "one step": Variant(),
    "mean": Variant(expectile=0.5, rho=0.0, action_dim=1),
    "chunks": Variant(horizon_length=3, gamma=0.9, flow_steps=4),
    "chunks of five": Variant(horizon_length=5, action_dim=1, expectile=0.9, alpha=0.1, n_critics=2),
    "returns of three steps": Variant(n_steps=3, gamma=0.9),
    "one flow step, one critic": Variant(flow_steps=1, n_critics=1, rho=2.0),
    "no cloning": Variant(alpha=0.0),
    "fast": Variant(tau=0.3, ema=0.2, learning_rate=0.02, rho=1.5),
}


class Reference(Transcription):
    """The method as published, sample by sample."""

    owners: ClassVar[dict[str, str]] = {"critic": "critic_loss", "actor": "actor_loss"}
    targets: ClassVar[dict[str, str]] = TARGETS
    variant: Variant

    def rate(self, target: str) -> float:
        return self.variant.tau if target == "critic_target" else 1 - self.variant.ema

    def v(self, network: str, k: int, s: th.Tensor, x: th.Tensor, f: th.Tensor) -> th.Tensor:
        return self.q(network, k, s, th.cat([x, f], dim=1))

    def reversed(self, s: th.Tensor, a: th.Tensor, d: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        x, f = a, th.ones(len(a), 1, dtype=th.float64)
        for _ in range(self.variant.flow_steps):
            x, f = x - self.mlp("actor", s, x, f) * d / self.variant.flow_steps, f - d / self.variant.flow_steps
        return x, f

    def critic_loss(self, batch: Batch, noise: RQLNoise) -> th.Tensor:
        kappa, n, total = self.variant.expectile, self.variant.n_critics, th.zeros((), dtype=th.float64)
        with th.no_grad():
            x, f = self.reversed(batch.observations, batch.actions, noise.d)
        for b in range(BATCH):
            row = slice(b, b + 1)
            with th.no_grad():
                start = th.zeros(1, 1, dtype=th.float64)
                next_vs = [
                    self.v("critic_target", k, batch.next_observations[row], noise.next_noise[row], start) for k in range(n)
                ]
                mean = sum(next_vs) / n
                std = th.sqrt(sum((v - mean) ** 2 for v in next_vs) / n)
                y = batch.rewards[b] + batch.discounts[b] * batch.masks[b] * (mean - self.variant.rho * std)
            for k in range(n):
                error = y - self.v("critic", k, batch.observations[row], x[row], f[row])
                weight = kappa if error.item() >= 0 else 1 - kappa
                total = total + batch.valids[b] * weight * error.squeeze() ** 2
        return total / (BATCH * n)

    def actor_loss(self, batch: Batch, noise: RQLNoise) -> th.Tensor:
        """The critics' own gradient is dropped in ``gradients``."""
        variant, cloning, value = self.variant, 0.0, 0.0
        n_actions, step = variant.horizon_length, 1 / variant.flow_steps
        for b in range(BATCH):
            row = slice(b, b + 1)
            s, a, x0, t = batch.observations[row], batch.actions[row], noise.x0[row], noise.t[row]
            x_t = (1 - t) * x0 + t * a
            u = self.mlp("actor", s, x_t, t)
            for i in range(n_actions):
                one = slice(i * variant.action_dim, (i + 1) * variant.action_dim)
                error = (u - (a - x0))[0, one]
                cloning = cloning + batch.action_valids[b, i] * (error**2).sum()
            ahead = min(step, 1 - t.item())
            later = th.full((1, 1), min(t.item() + step, 1.0), dtype=th.float64)
            vs = [self.v("critic", k, s, x_t + u * ahead, later) for k in range(variant.n_critics)]
            value = value + batch.valids[b] * sum(vs).squeeze() / variant.n_critics
        return variant.alpha * cloning / (BATCH * variant.dim) - value / BATCH

    def losses(self, batch: Batch, noise: RQLNoise) -> dict[str, th.Tensor]:
        losses = {"critic_loss": self.critic_loss(batch, noise), "actor_loss": self.actor_loss(batch, noise)}
        return losses | {"loss": sum(losses.values())}


def random_batch(variant: Variant, seed: int, dtype: th.dtype = th.float64) -> tuple[Batch, RQLNoise]:
    """Some chunks reach past the end of their trajectory, and then begin with one or more valid actions."""
    draw, h = Draw(seed, dtype), variant.horizon_length
    batch = draw.batch(variant.dim, variant.gamma, n_steps=max(h, variant.n_steps))
    lengths = draw.rng.integers(1, 2 * h + 1, BATCH).clip(max=h)
    batch = batch._replace(valids=draw.tensor(lengths == h), action_valids=draw.tensor(np.arange(h) < lengths[:, None]))
    noise = RQLNoise(
        d=th.where(
            th.arange(BATCH)[:, None] % 2 == 0, draw.uniform(BATCH, 1), draw.tensor(draw.rng.integers(0, 3, (BATCH, 1)) / 2)
        ),
        next_noise=draw.normal(BATCH, variant.dim),
        x0=draw.normal(BATCH, variant.dim),
        t=draw.uniform(BATCH, 1),
    )
    return batch, noise


def term(model: RQL, name: str, batch: Batch, noise: RQLNoise) -> tuple[th.Tensor, dict[str, th.Tensor]]:
    """One of the two terms of the loss, by the name of its method."""
    policy, s = model.policy, batch.observations
    result: tuple[th.Tensor, dict[str, th.Tensor]] = getattr(model, name)(
        batch, noise, policy.velocity(policy.actor, s), policy.value(policy.critic, s)
    )
    return result


def model_losses(model: RQL, batch: Batch, noise: RQLNoise) -> dict[str, th.Tensor]:
    losses = {name: term(model, name, batch, noise)[0] for name in ("critic_loss", "actor_loss")}
    return losses | {"loss": model.loss(batch, noise)[0]}


def both(variant: Variant) -> tuple[RQL, Reference]:
    """The package's model in float64, and the transcription with the same parameters."""
    model = variant.model()
    model.policy.double()
    return model, Reference(model, variant)


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_losses_and_gradients(variant: Variant) -> None:
    """Each loss, and its gradient to every parameter, in float64."""
    model, reference = both(variant)
    batch, noise = random_batch(variant, seed=0)
    expected, found = reference.losses(batch, noise), model_losses(model, batch, noise)
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(value.item(), rel=1e-12, abs=1e-12), name
    found["loss"].backward()
    reference.assert_gradients(model, expected)


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_losses_in_single_precision(variant: Variant) -> None:
    """The same losses in float32, as the package computes them."""
    model = variant.model()
    expected = Reference(model, variant).losses(*random_batch(variant, seed=0))
    found = model_losses(model, *random_batch(variant, seed=0, dtype=th.float32))
    assert_single_precision(found, expected)


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_parameters_after_updates(variant: Variant) -> None:
    """All parameters after three updates, those of the targets and of the moving average too, in float64."""
    model, reference = both(variant)
    start = parameters_of(model)
    for seed in range(3):
        batch, noise = random_batch(variant, seed)
        metrics = model.update(batch, noise)
        assert metrics["critic_loss"].item() == pytest.approx(reference.losses(batch, noise)["critic_loss"].item(), rel=1e-9)
        reference.update(batch, noise)
    reference.assert_parameters(model, start)


@pytest.mark.parametrize("h", [2, 3, 5])
def test_chunks_without_a_mask_of_actions(h: int) -> None:
    """A batch made by hand may leave it out: the whole chunk is then valid, or not."""
    variant = Variant(horizon_length=h)
    model = variant.model()
    batch, noise = random_batch(variant, 0, th.float32)
    assert not batch.valids.all()
    spread = batch._replace(action_valids=batch.valids[:, None].expand(-1, h))
    th.testing.assert_close(
        term(model, "actor_loss", batch._replace(action_valids=None), noise)[0],
        term(model, "actor_loss", spread, noise)[0],
        rtol=1e-6,
        atol=0,
    )


# Batches, against how the published code lays them out.


@dataclass
class Trajectories:
    """Trajectories of 2 to 7 transitions, of which about half end because the task did."""

    rng: np.random.Generator

    def __post_init__(self) -> None:
        lengths = self.rng.integers(2, 8, 40)
        n = int(lengths.sum())
        self.ends = np.zeros(n, dtype=bool)
        self.ends[np.cumsum(lengths) - 1] = True
        self.last = np.repeat(np.cumsum(lengths) - 1, lengths)
        self.terminations = self.ends & (self.rng.random(n) < 0.5)
        # A trajectory's observations follow on one another, so that those after row i are those of row i + 1.
        self.observations = np.arange(n, dtype=np.float32)[:, None] * np.ones(4, np.float32)
        self.next_observations = self.observations + 1
        self.actions = self.rng.uniform(-1, 1, (n, 2)).astype(np.float32)
        self.rewards = self.rng.normal(size=n).astype(np.float32)

    def offline(self) -> OfflineBuffer:
        dataset = OfflineDataset(
            observations=self.observations,
            actions=self.actions,
            rewards=self.rewards,
            terminations=self.terminations,
            ends=self.ends,
            valids=np.ones(len(self.ends), dtype=bool),
            next_observations=self.next_observations,
            name="trajectories",
        )
        return OfflineBuffer(dataset, spaces.Box(-np.inf, np.inf, (4,)), spaces.Box(-1.0, 1.0, (2,)))

    def online(self) -> OnlineBuffer:
        buffer = OnlineBuffer(1000, spaces.Box(-np.inf, np.inf, (4,)), spaces.Box(-1.0, 1.0, (2,)), "cpu")
        for i, end in enumerate(self.ends):
            info = {"TimeLimit.truncated": bool(end and not self.terminations[i])}
            buffer.add(
                self.observations[i : i + 1],
                self.next_observations[i : i + 1],
                self.actions[i : i + 1],
                self.rewards[i : i + 1],
                np.array([end]),
                [info],
            )
        return buffer


@pytest.mark.parametrize("source", ["offline", "online"])
@pytest.mark.parametrize("h", [1, 3, 5])
def test_published_layout_of_batches(h: int, source: str) -> None:
    """
    The published code takes h + 1 rows from a start on, the last row of the trajectory repeated, and makes of them what it
    needs by shifting ``terminals`` by one row. Both agree on rewards, masks, and on which chunks and which actions count. In
    one case they bootstrap from different states: a chunk that ends just where its trajectory was cut off (deviation 3).
    """
    gamma, data = 0.9, Trajectories(np.random.default_rng(h))
    starts = np.flatnonzero(~data.ends)  # the published code never starts from the last row
    batch = getattr(data, source)().draw(th.from_numpy(starts), gamma=gamma, chunk_length=h)

    rows = np.minimum(starts + np.arange(h + 1)[:, None], data.last[starts])
    terminals, masks = data.ends[rows].astype(float), 1 - data.terminations[rows].astype(float)
    shifted = np.concatenate([np.zeros_like(terminals[:1]), terminals[:-1]])
    discounts = np.append(gamma ** np.arange(h), 0.0)
    rewards = (data.rewards[rows] * discounts[:, None] * (1 - shifted)).sum(axis=0)
    valids = shifted.sum(axis=0) <= 1

    assert 0 < valids.sum() and (valids.all() == (h == 1))
    np.testing.assert_array_equal(batch.valids.numpy(), valids)
    np.testing.assert_array_equal(batch.action_valids.numpy(), 1 - shifted[:-1].T)
    np.testing.assert_array_equal(batch.actions.numpy(), data.actions[rows[:h]].transpose(1, 0, 2).reshape(len(starts), -1))
    np.testing.assert_allclose(batch.rewards.numpy(), rewards, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(batch.masks.numpy()[valids], masks[-2][valids])
    np.testing.assert_allclose(batch.discounts.numpy()[valids], gamma**h, rtol=1e-6)
    same = (batch.next_observations.numpy() == data.observations[rows[-1]]).all(axis=1)
    cut = terminals[h - 1].astype(bool) & valids
    np.testing.assert_array_equal(same[valids], ~cut[valids])
    assert (cut & (masks[-2] > 0)).any() == (h > 1)
    np.testing.assert_array_equal(batch.next_observations.numpy()[cut], data.observations[rows[-1]][cut] + 1)


def test_batches_of_both_buffers_keep_the_mask_of_actions() -> None:
    data = Trajectories(np.random.default_rng(0))
    first, second = (buffer.draw(th.arange(20), chunk_length=3) for buffer in (data.offline(), data.online()))
    both = concatenate(first, second)
    assert both.action_valids.shape == (40, 3) and th.equal(both.action_valids[:20], both.action_valids[20:])
    assert th.equal(both.action_valids.prod(dim=1), both.valids) and not both.valids.all()


@pytest.mark.parametrize("source", ["offline", "online"])
def test_single_actions_are_valid_whatever_their_returns(source: str) -> None:
    """A return over fewer steps than asked for is one all the same."""
    data = Trajectories(np.random.default_rng(0))
    batch = getattr(data, source)().draw(th.arange(len(data.ends)), n_steps=4)
    assert batch.action_valids.shape == (len(data.ends), 1) and batch.action_valids.all() and batch.valids.all()


# The reversal.


@pytest.mark.parametrize("n_steps", [1, 3, 10])
def test_reversal_of_a_linear_field(n_steps: int) -> None:
    """``u = A x``: ``(I - d / F A)^F x``, at time ``1 - d``."""
    generator = th.Generator().manual_seed(0)
    matrix = th.randn(3, 3, generator=generator, dtype=th.float64)
    x, d = th.randn(5, 3, generator=generator, dtype=th.float64), th.linspace(0, 1, 5, dtype=th.float64)[:, None]
    found, f = reverse(lambda x, f: x @ matrix.T, x, d, n_steps)
    expected = [
        th.linalg.matrix_power(th.eye(3, dtype=th.float64) - d[b] / n_steps * matrix, n_steps) @ x[b] for b in range(5)
    ]
    th.testing.assert_close(found, th.stack(expected), rtol=1e-12, atol=1e-12)
    th.testing.assert_close(f, 1 - d, rtol=0, atol=1e-15)
    assert th.equal(found[0], x[0])


@pytest.mark.parametrize("n_steps", [1, 4])
def test_times_of_the_reversal(n_steps: int) -> None:
    """``u = 2 f``: each step takes the field at its later end, so that ``2 d - d^2 (1 - 1 / F)`` is subtracted."""
    d = th.linspace(0, 1, 6, dtype=th.float64)[:, None]
    found, _ = reverse(lambda x, f: 2 * f.expand_as(x), th.ones(6, 2, dtype=th.float64), d, n_steps)
    th.testing.assert_close(found, (1 - 2 * d + d**2 * (1 - 1 / n_steps)).expand(-1, 2), rtol=1e-12, atol=1e-12)


def test_reversal_leads_back() -> None:
    """Constant velocities are followed back exactly; else the error is that of Euler's method, and falls with the steps."""
    z = th.randn(100, 2, generator=th.Generator().manual_seed(0), dtype=th.float64)
    c = th.tensor([0.3, -2.0], dtype=th.float64)
    back, f = reverse(lambda x, f: c.expand_as(x), z + c, th.ones(100, 1, dtype=th.float64), 10)
    th.testing.assert_close(back, z, rtol=0, atol=1e-14)
    assert f.abs().max().item() < 1e-15
    errors = []
    for n_steps in (10, 20, 40):
        end = euler(lambda x, t: x.flip(1).sin() + t, z, n_steps)
        back, _ = reverse(lambda x, f: x.flip(1).sin() + f, end, th.ones(100, 1, dtype=th.float64), n_steps)
        errors.append((back - z).abs().mean().item())
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.1) and errors[1] / errors[2] == pytest.approx(2, rel=0.1)


def test_noise() -> None:
    """
    Standard normal numbers and uniform times, all independent. Every other row is reversed for a whole number of tenths, so
    that the rows of either buffer, which follow on one another, have both kinds; and a seed repeats it all.
    """
    model, n = make_model(action_dim=1, horizon_length=2), 40_001
    noise = model.draw_noise(n)
    assert noise.d.shape == noise.t.shape == (n, 1) and noise.x0.shape == noise.next_noise.shape == (n, 2)
    anywhere, tenths = noise.d[0::2, 0], 10 * noise.d[1::2, 0]
    assert th.equal(tenths, tenths.round()) and not th.equal(10 * anywhere, (10 * anywhere).round())
    shares = th.bincount(tenths.long(), minlength=11) / len(tenths)
    assert len(shares) == 11 and (shares - 1 / 11).abs().max().item() < 5 / math.sqrt(11 * len(tenths))
    for times in (anywhere, noise.t[:, 0]):
        assert times.min().item() >= 0 and times.max().item() <= 1
        assert times.mean().item() == pytest.approx(0.5, abs=5 / math.sqrt(12 * len(times)))
        assert times.var().item() == pytest.approx(1 / 12, rel=0.03)
    columns = th.cat([noise.x0, noise.next_noise, noise.t, noise.d], dim=1)
    assert (columns[:, :4].std(dim=0) - 1).abs().max().item() < 5 / math.sqrt(2 * n)
    assert (th.corrcoef(columns.T) - th.eye(6)).abs().max().item() < 5 / math.sqrt(n)
    for again, first in zip(make_model(action_dim=1, horizon_length=2).draw_noise(n), noise, strict=True):
        assert th.equal(again, first)


# Closed forms.


def constant_critics(model: RQL, **values: list[float]) -> None:
    """Networks (``critic``, ``critic_target``) that give each critic's value whatever they are asked."""
    with th.no_grad():
        for network, numbers in values.items():
            net = getattr(model.policy, network).net
            net.weights[-1].zero_()
            net.biases[-1].copy_(th.tensor(numbers).reshape(-1, 1, 1))


@pytest.mark.parametrize("expectile", [0.1, 0.5, 0.7, 0.9])
def test_expectile_of_a_uniform_return(expectile: float) -> None:
    """Where a value is least bad: that of returns uniform in [0, 1] is ``sqrt(k) / (sqrt(k) + sqrt(1 - k))``."""
    best = math.sqrt(expectile) / (math.sqrt(expectile) + math.sqrt(1 - expectile))
    model, n = make_model(action_dim=1, n_critics=3, expectile=expectile), 4000
    constant_critics(model, critic=[best - 0.1, best, best + 0.1])
    obs, ones = th.zeros(n, 4), th.ones(n)
    returns = (th.arange(n) + 0.5) / n
    batch = Batch(obs, th.zeros(n, 1), returns, 0 * ones, ones, obs, ones)
    loss, _ = term(model, "critic_loss", batch, model.draw_noise(n))
    loss.backward()
    slopes = model.policy.critic.net.biases[-1].grad.flatten()
    assert slopes[1].item() == pytest.approx(0, abs=1e-4)
    assert slopes[0].item() < -0.01 and slopes[2].item() > 0.01


@pytest.mark.parametrize(("rho", "mask", "target"), [(0.5, 1.0, -0.505), (0.0, 1.0, -0.01), (0.5, 0.0, -1.0)])
def test_target(rho: float, mask: float, target: float) -> None:
    """r = -1, target critics {0, 2}: -1 + .99 (1 - rho), where the task goes on."""
    model = make_model(n_critics=2, rho=rho, expectile=0.5)
    constant_critics(model, critic_target=[0.0, 2.0], critic=[0.0, 1.0])
    ones, obs = th.ones(16), th.randn(16, 4)
    batch = Batch(obs, th.zeros(16, 2), -ones, mask * ones, 0.99 * ones, obs, ones)
    loss, metrics = term(model, "critic_loss", batch, model.draw_noise(16))
    assert loss.item() == pytest.approx((target**2 + (1 - target) ** 2) / 4, rel=1e-5)
    assert (metrics["v_mean"].item(), metrics["v_min"].item(), metrics["v_max"].item()) == (0.5, 0.0, 1.0)


def test_step_of_improvement() -> None:
    """
    Where the value is ``c . x``, the best velocity is the clone's plus ``D c / (2 alpha)`` times the length of a step, which
    is ``1 / F``, and shorter near the end.
    """
    model, n = make_model(action_dim=2, alpha=0.8, flow_steps=4), 2000
    c = th.tensor([0.6, -1.5])
    batch = Batch(th.zeros(n, 4), th.zeros(n, 2), *[th.ones(n)] * 3, th.zeros(n, 4), th.ones(n))
    noise = model.draw_noise(n)

    def slope(shift: th.Tensor, t: float) -> float:
        """Of the loss, where each velocity is that of its path to ``a = 0`` and some more."""
        shift.grad = None
        arguments = (lambda x, t: shift - noise.x0), (lambda x, f, frozen: (x @ c)[None])
        model.actor_loss(batch, noise._replace(t=th.full((n, 1), t)), *arguments)[0].backward()
        return shift.grad.abs().max().item()

    for t, ahead in ((0.0, 0.25), (0.5, 0.25), (0.9, 0.1)):
        shift = (2 * c * ahead / (2 * 0.8)).requires_grad_()
        assert slope(shift, t) < 1e-5
        assert (slope(shift, 0.75) > 0.01) == (t == 0.9)  # a step as short as at 0.9 is too short there


def test_steps_end_at_the_action() -> None:
    """Points and times that the actor's critics are asked at: a step ahead, but not beyond time 1."""
    model, asked = make_model(action_dim=1, flow_steps=4), []

    def value(x: th.Tensor, f: th.Tensor, frozen: bool = False) -> th.Tensor:
        asked.append((x, f, frozen))
        return x.T

    batch = Batch(th.zeros(4, 4), th.ones(4, 1), *[th.ones(4)] * 3, th.zeros(4, 4), th.ones(4))
    noise = model.draw_noise(4)._replace(t=th.tensor([[0.0], [0.5], [0.75], [0.95]]), x0=th.zeros(4, 1))
    model.actor_loss(batch, noise, lambda x, t: th.full((4, 1), 2.0), value)
    ((x, f, frozen),) = asked
    assert frozen
    th.testing.assert_close(f, th.tensor([[0.25], [0.75], [1.0], [1.0]]))
    th.testing.assert_close(x, noise.t + 2 * th.tensor([[0.25], [0.25], [0.25], [0.05]]))


@pytest.mark.parametrize("pixels", [False, True], ids=["vectors", "pixels"])
@pytest.mark.parametrize(("loss", "owner"), [("critic_loss", "critic"), ("actor_loss", "actor")])
def test_gradient_isolation(loss: str, owner: str, pixels: bool) -> None:
    """Each term has a gradient for one network, with its encoder, and never for a target."""
    batch, noise = random_batch(Variant(), 0, th.float32)
    model = Variant().model()
    if pixels:
        env = AnySpaces(spaces.Box(0, 255, (1, 8, 8), np.uint8), spaces.Box(-1.0, 1.0, (2,)))
        model = make_model(env=env, policy_kwargs={"features_extractor_kwargs": {"cnn_output_dim": 6}})
        images = th.randint(0, 256, (BATCH, 1, 8, 8), generator=th.Generator().manual_seed(0), dtype=th.uint8)
        batch = batch._replace(observations=images, next_observations=images.flip(2))
    term(model, loss, batch, noise)[0].backward()
    for name, parameter in model.policy.named_parameters():
        if name.split(".")[0] == owner:
            assert parameter.grad is not None and parameter.grad.abs().max().item() > 0, name
        else:
            assert parameter.grad is None or not parameter.grad.any(), name


# A short training whose result is known.


def moments_after_improvement(alpha: float, slope: float, n_steps: int) -> float:
    """
    The mean action where the data is N(-.1, .4^2) and the reward ``slope`` times the action. The clone's velocity is
    ``-.1 + A(t) (x + .1 t)``; values of ``(x, f)`` are linear in ``x``, with the slope of the action that ``(x, f)`` leads to;
    and each velocity is shifted by that slope at the next time, times ``1 / (2 alpha F)`` (``test_step_of_improvement``).
    """

    def a(t: float) -> float:
        return (t * 0.16 - (1 - t)) / ((1 - t) ** 2 + t**2 * 0.16)

    def value_slope(f: float) -> float:
        step = (1 - f) / n_steps
        return slope / math.prod(1 - step * a(1 - i * step) for i in range(n_steps))

    x = 0.0
    for k in range(n_steps):
        t = k / n_steps
        shift = value_slope(min(t + 1 / n_steps, 1.0)) / (2 * alpha * n_steps)
        x += (-0.1 + a(t) * (x + 0.1 * t) + shift) / n_steps
    return x


@pytest.mark.nightly
@pytest.mark.parametrize(("alpha", "mean"), [pytest.param(10.0, -0.099, marks=pytest.mark.nightly), (0.05, 0.091)])
def test_values_of_noise_are_those_of_the_policy(alpha: float, mean: float) -> None:
    """
    A bandit, trained from scratch: actions of N(-.1, .4^2), and a reward of .3 a. ``V(s, x, 0)`` is the reward of the action
    whose reversal ``x`` is, and its mean over noise the value of the policy. A high ``alpha`` holds the policy at the data;
    with a low one its actions are better by as much as the fixed point says.
    """
    assert moments_after_improvement(alpha, 0.3, 10) == pytest.approx(mean, abs=1e-3)
    rng, n = np.random.default_rng(0), 20_000
    actions = np.clip(rng.normal(-0.1, 0.4, (n, 1)), -1, 1)
    data = dict(observations=np.ones((n, 1)), actions=actions, rewards=0.3 * actions[:, 0], terminations=np.ones(n))
    model = RQL(
        "FlowPolicy",
        box_env(obs_dim=1),
        learning_rate=lambda remaining: 1e-2 * remaining,
        alpha=alpha,
        rho=0.0,
        ema=0.98,
        dataset=data,
        tau=0.05,
        policy_kwargs={"net_arch": (32, 32), "n_critics": 2},
        offline_log_interval=10_000,
        device="cpu",
        seed=0,
    )
    policy, n = model.learn(700).policy, 2000
    z, s = th.special.ndtri((th.arange(n) + 0.5) / n)[:, None], th.ones(n, 1)
    with th.no_grad():
        acted, finished = policy.act_latest(s, z), th.linspace(-1, 0.9, n)[:, None]
        x, f = reverse(policy.velocity(policy.actor, s), finished, th.ones(n, 1), 10)
        of_actions, of_reversed, of_noise = (
            policy.value(policy.critic, s)(point, time).mean(dim=0)
            for point, time in ((acted, th.ones(n, 1)), (x, f), (z, th.zeros(n, 1)))
        )
    assert acted.mean().item() == pytest.approx(mean, abs=0.035)
    usual = x[:, 0].abs() < 2  # noise that the policy acts from
    th.testing.assert_close(of_actions, 0.3 * acted[:, 0], rtol=0, atol=0.04)
    th.testing.assert_close(of_reversed[usual], 0.3 * finished[usual, 0], rtol=0, atol=0.04)
    assert of_noise.mean().item() == pytest.approx(0.3 * acted.mean().item(), abs=0.01)
    assert of_noise.std().item() > 0.05  # it is no value of the state alone


# Acting.


def test_samplers() -> None:
    """The moving average of the weights acts, clipped to the box, and ``"latest"`` the weights; rollouts take the latter."""
    variant = Variant(horizon_length=2)
    model = variant.model()
    reference, policy = Reference(model, variant), model.policy
    assert list(policy.samplers) == ["average", "latest"] and policy.sampler == "average"
    s = random_batch(variant, 0, th.float32)[0].observations
    z = th.randn(BATCH, 4, generator=th.Generator().manual_seed(0))
    acted = {}
    for sampler, network in (("average", "actor_average"), ("latest", "actor")):
        acting = policy.with_sampler(sampler)
        for noise in (z, 0 * z):
            end = reference.euler(lambda x, t, n=network: reference.mlp(n, s.double(), x, t), noise.double(), 10)
            with th.no_grad():
                acted[sampler] = acting.act(s, noise)
            th.testing.assert_close(acted[sampler].double(), end.clip(-1, 1).detach(), rtol=0, atol=2e-5)
        np.testing.assert_allclose(acting.predict(s.numpy(), deterministic=True)[0], acted[sampler][:, :2].numpy(), atol=1e-6)
    assert (acted["average"] - acted["latest"]).abs().max().item() > 0.1

    generator = th.Generator().manual_seed(3)
    exploring = policy.exploring(generator)
    assert exploring.sampler == "latest" and policy.sampler == "average"
    noise = th.randn(BATCH, 1, 4, generator=th.Generator().manual_seed(3))
    with th.no_grad():
        expected = policy.act_latest(s, noise[:, 0])[:, :2]
    np.testing.assert_allclose(exploring.predict(s.numpy())[0], expected.numpy(), atol=1e-6)


def test_the_best_of_several() -> None:
    """The action of the highest value at time 1, by the critics' mean and not their targets'; rollouts choose as well."""
    variant = Variant()
    model = make_model(**asdict(variant), policy_kwargs={"best_of_n": 3})
    shake(model, 0.3)
    policy, reference = model.policy.double(), Reference(model, variant)
    s = random_batch(variant, 0)[0].observations
    noise = Draw(1).normal(BATCH, 3, 2)
    with th.no_grad():
        chosen = policy.act_best(s, noise)
        candidates = th.stack([policy.act_average(s, noise[:, n]) for n in range(3)])
        ones = th.ones(BATCH, 1, dtype=th.float64)
        scores = th.stack([sum(reference.v("critic", k, s, a, ones) for k in range(3)) for a in candidates])
    best = scores.argmax(dim=0)
    assert len(best.unique()) == 3
    th.testing.assert_close(chosen, candidates[best, th.arange(BATCH)], rtol=0, atol=1e-10)
    assert policy.exploring(th.Generator()).best_of_n == 3


# Arguments, and files.


def test_published_defaults() -> None:
    model = make_model()
    expected = dict(learning_rate=3e-4, batch_size=256, tau=0.005, gamma=0.99, rho=0.5, flow_steps=10, ema=0.999)
    assert {name: getattr(model, name) for name in expected} == expected and model.max_grad_norm is None
    policy = RQLPolicy(spaces.Box(-1, 1, (3,)), spaces.Box(-1, 1, (2,)), lambda _: 3e-4)
    assert policy.n_critics == 10 and policy.critic.net.layer_norm
    assert tuple(policy.critic.net.weights[0].shape) == (10, 3 + 2 + 1, 512)
    assert [layer.out_features for layer in policy.actor.net.layers] == [512, 512, 512, 512, 2]
    (group,) = policy.optimizer.param_groups
    held = {id(parameter) for parameter in group["params"]}
    assert held == {id(p) for name, p in policy.named_parameters() if name.split(".")[0] in ("actor", "critic")}
    for target, net in TARGETS.items():
        pairs = zip(getattr(policy, target).parameters(), getattr(policy, net).parameters(), strict=True)
        assert all(th.equal(first, second) and first.data_ptr() != second.data_ptr() for first, second in pairs)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"alpha": -1.0}, "`alpha` is -1.0; it must not be negative"),
        ({"rho": -0.5}, "`rho` is -0.5; it must not be negative"),
        ({"expectile": 0.0}, "`expectile` is 0.0; it must be above 0 and below 1"),
        ({"expectile": 1.0}, "`expectile` is 1.0"),
        ({"ema": 1.0}, "`ema` is 1.0; it must be at least 0 and below 1"),
        ({"ema": -0.1}, "`ema` is -0.1"),
        ({"flow_steps": 0}, "`flow_steps` is 0; it must be at least 1"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], message: str) -> None:
    """The constructor raises an error that names the argument and its value."""
    with pytest.raises(ValueError, match=message):
        make_model(**arguments)


def test_a_saved_model(tmp_path: Path) -> None:
    """A loaded model has the same arguments, moving average and optimizer, and its updates are equal."""
    variant = Variant(horizon_length=2, ema=0.9)
    model = variant.model()
    model.update(*random_batch(variant, 0, th.float32))
    model.save(tmp_path / "model")
    loaded = RQL.load(tmp_path / "model", device="cpu")
    for argument in ("alpha", "expectile", "rho", "flow_steps", "ema", "horizon_length"):
        assert getattr(loaded, argument) == getattr(variant, argument), argument
    for each in (model, loaded):
        each.update(*random_batch(variant, 1, th.float32))
    for (name, first), (_, second) in zip(model.policy.named_parameters(), loaded.policy.named_parameters(), strict=True):
        assert th.equal(first, second), name
