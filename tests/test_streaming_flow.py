"""Streaming flow policy: its closed forms, its losses against a second implementation, and how it streams."""

import math
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from conformance.callbacks import Raising
from conformance.environments import AnySpaces, collect, pendulum
from gymnasium import spaces
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecNormalize
from transcription import BATCH, OBS_DIM, Draw, Transcription, box_env

from sb3_flow import StreamingFlow
from sb3_flow.common import networks
from sb3_flow.common.checkpoints import TrainingCheckpoint
from sb3_flow.common.data.dataset import OfflineDataset
from sb3_flow.common.data.no_environment import NoEnvironment
from sb3_flow.common.data.offline_buffer import OfflineBuffer
from sb3_flow.common.schedules import WarmUpCosine
from sb3_flow.common.type_aliases import Batch
from sb3_flow.imitation.networks import Block, ModulatedMLP, ResidualBlock
from sb3_flow.streaming_flow import tubes
from sb3_flow.streaming_flow.streaming_flow import StreamingFlowNoise
from sb3_flow.zoo.algorithms import acts_by_sampling

F64 = th.float64


def column(*values: float) -> th.Tensor:
    return th.tensor(values, dtype=F64).unsqueeze(1)


def knots(*values: float) -> th.Tensor:
    """A chunk of one coordinate, ``(1, H + 1, 1)``."""
    return th.tensor(values, dtype=F64).view(1, -1, 1)


# The tubes. The numbers are those of the specification, worked out by hand or from the closed forms.


@pytest.mark.parametrize(
    ("t", "xi", "slope"),
    [(0.2, 0.06, 0.3), (0.5, 0.2, 0.6), (1 / 3, 0.1, 0.6), (0.9, 0.23, -0.3), (1.0, 0.2, -0.3), (0.0, 0.0, 0.3)],
)
def test_the_curve_is_straight_between_knots(t: float, xi: float, slope: float) -> None:
    found = tubes.segment(knots(0, 0.1, 0.3, 0.2), column(t))
    np.testing.assert_allclose([part.item() for part in found], [xi, slope], atol=1e-12)


def test_each_sample_has_its_own_curve_and_time() -> None:
    chunks = th.tensor([[[0.0, 5.0], [1.0, 4.0], [1.0, 2.0]], [[-1.0, 0.0], [0.0, 0.0], [2.0, 1.0]]], dtype=F64)
    xi, slope = tubes.segment(chunks, column(0.25, 0.75))
    np.testing.assert_allclose(xi, [[0.5, 4.5], [1.0, 0.5]])
    np.testing.assert_allclose(slope, [[2.0, -2.0], [4.0, 2.0]])


def test_the_tube_gets_thinner() -> None:
    std = tubes.tube_std(th.tensor([0, 0.25, 0.5, 1.0]), 0.1, 3.0)
    np.testing.assert_allclose(std, [0.1, 0.04724, 0.02231, 0.00498], atol=5e-6)


@pytest.mark.parametrize(("steps", "std"), [(16, 0.003607), (160, 0.004839)])
def test_euler_shrinks_the_tube_faster(steps: int, std: float) -> None:
    """``sigma_0 (1 - k / M)^M`` after ``M`` steps."""
    a, still = column(0.1, -0.1), th.zeros(2, 1, dtype=F64)
    for _ in range(steps):
        a = a + tubes.velocity(a, still, still, 3.0) / steps
    np.testing.assert_allclose(a[:, 0], [std, -std], rtol=2e-4)


def test_euler_is_exact_at_the_knots() -> None:
    """``a_j = xi_j + (a_0 - xi_0) (1 - k / H)^j``, whatever the curve, if a step is a segment."""
    horizon, k = 8, 2.5
    chunk = Draw(0).normal(1, horizon + 1, 1)
    a = chunk[:, 0] + 0.3
    for j in range(horizon):
        t = column(j / horizon)
        a = a + tubes.velocity(a, *tubes.segment(chunk, t), k) / horizon
        assert a.item() == pytest.approx(chunk[0, j + 1].item() + 0.3 * (1 - k / horizon) ** (j + 1), abs=1e-12)


def two_ways(end: float = 0.75, steps: int = 4) -> th.Tensor:
    """One demonstration to each side, ``xi = +-0.75 t``."""
    up = th.linspace(0, end, steps + 1, dtype=F64).view(1, -1, 1)
    return th.cat([up, -up])


@pytest.mark.parametrize(("t", "a", "v"), [(0.05, 0.0, -0.125), (0.05, 0.2, 0.9625), (0.1, 0.5, 1.4375), (-0.3, 0.5, -0.9375)])
def test_the_field_of_two_demonstrations_has_a_closed_form(t: float, a: float, v: float) -> None:
    """``v* = -k a + (m' + k m) tanh(m a / sigma_t^2 + log(pi_+ / pi_-) / 2)``; the parameters name where, then when."""
    where, when, k, sigma_0, slope = t, a, 2.5, 0.1, 0.75
    found = tubes.mixture_velocity(column(where), column(when), two_ways(), (0.5, 0.5), sigma_0, k)
    assert found.item() == pytest.approx(v, abs=5e-5)
    unequal = tubes.mixture_velocity(column(where), column(when), two_ways(), (0.7, 0.3), sigma_0, k)
    m, std = slope * when, sigma_0 * math.exp(-k * when)
    tanh = math.tanh(m * where / std**2 + 0.5 * math.log(0.7 / 0.3))
    assert unequal.item() == pytest.approx(-k * where + (slope + k * m) * tanh, abs=1e-12)


def flow_of_two(share: float, k: float, n: int = 2_000, steps: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """The quantiles of N(0, 0.1^2), and where the exact field carries them. A flow in one dimension keeps their order."""
    start = th.tensor([0.1 * NormalDist().inv_cdf((i + 0.5) / n) for i in range(n)], dtype=F64).unsqueeze(1)
    a = start
    for i in range(steps):
        a = a + tubes.mixture_velocity(a, th.full_like(a, i / steps), two_ways(), (share, 1 - share), 0.1, k) / steps
    return start[:, 0].numpy(), a[:, 0].numpy()


@pytest.mark.parametrize(("k", "std"), [(2.5, 0.0082), (0.0, 0.1)])
def test_the_flow_of_two_demonstrations_keeps_both(k: float, std: float) -> None:
    """At the end it is the mixture of both tubes."""
    _, end = flow_of_two(0.5, k)
    assert (end > 0).mean() == 0.5
    assert end[end > 0].mean() == pytest.approx(0.75, abs=0.002)
    assert end[end > 0].std() == pytest.approx(std, rel=0.02)


def test_unequal_demonstrations_keep_their_odds() -> None:
    """The start alone decides: below ``sigma_0 Phi^-1(0.3)`` the rarer one is followed."""
    start, end = flow_of_two(0.7, 2.5)
    assert (end > 0).mean() == pytest.approx(0.7, abs=0.002)
    # Euler's method, with 400 steps, is off by 4e-4.
    assert start[end > 0].min() == pytest.approx(0.1 * NormalDist().inv_cdf(0.3), abs=5e-4)


@pytest.mark.parametrize(("k", "floors"), [(0.0, (0.5625, 0.348, 0.111, 0.0002)), (2.5, (0.5625, 0.416, 0.026, 0.0))])
def test_where_demonstrations_branch_the_loss_has_a_floor(k: float, floors: tuple[float, ...]) -> None:
    """What is left of the squared error at the exact field is the spread of the two targets; of one demonstration, nothing."""
    eta = column(*(NormalDist().inv_cdf((i + 0.5) / 4_000) for i in range(4_000)))
    for when, floor in zip((0.0, 0.1, 0.2, 0.5), floors, strict=True):
        t = th.full_like(eta, when)
        for demonstrations, expected in ((two_ways(), floor), (two_ways()[:1], 0.0)):
            errors = []
            for chunk in demonstrations:
                xi, slope = tubes.segment(chunk.expand(len(t), -1, -1), t)
                a = xi + tubes.tube_std(t, 0.1, k) * eta
                weights = (1 / len(demonstrations),) * len(demonstrations)
                best = tubes.mixture_velocity(a, t, demonstrations, weights, 0.1, k)
                errors.append((tubes.velocity(a, xi, slope, k) - best).square().mean().item())
            assert np.mean(errors) == pytest.approx(expected, abs=6e-4)


SETTINGS = [(0.1, 0.3, 1.0), (0.05, 0.5, 0.0), (0.1, 0.1, 0.0)]


@pytest.mark.parametrize(
    ("setting", "std", "t", "covariance"),
    [
        (SETTINGS[0], 0.29774, 0.5, (0.02584, 0.09676, 0.4225)),
        (SETTINGS[0], 0.29774, 1.0, (0.09, 0.08932, 0.09)),
        (SETTINGS[1], 0.49749, 0.5, (0.06438, 0.18656, 0.5625)),
        (SETTINGS[2], 0.0, 0.5, (0.01, 0.0, 0.3025)),
    ],
)
def test_the_latent_tube(setting: tuple[float, float, float], std: float, t: float, covariance: tuple[float, ...]) -> None:
    assert tubes.latent_std(*setting) == pytest.approx(std, abs=1e-5)
    found = [part.item() for part in tubes.latent_covariance(column(t), *setting)]
    np.testing.assert_allclose(found, covariance, atol=1e-5)


def test_the_latent_field_at_a_point() -> None:
    found = tubes.latent_velocity(*(column(x) for x in (0.3, 0.4, 0.2, 1.2, 0.5)), *SETTINGS[0])
    np.testing.assert_allclose([part.item() for part in found], [1.306125, 0.476923], atol=1e-6)


@pytest.mark.parametrize("setting", [*SETTINGS, (0.2, 0.4, 2.5)])
def test_the_latent_field_moves_along_the_closed_form_paths(setting: tuple[float, float, float]) -> None:
    """By finite differences: this is what ``(1 + k t)`` is for."""
    sigma_0, sigma_1, k = setting
    chunk, step = knots(0.1, 0.5, -0.2), 1e-6
    draw = Draw(1)
    eta, z_0 = draw.normal(50, 1), draw.normal(50, 1)

    def path(t: th.Tensor) -> tuple[th.Tensor, ...]:
        xi, slope = tubes.segment(chunk.expand(len(t), -1, -1), t)
        a = xi + sigma_0 * eta * th.exp(-k * t) + tubes.latent_std(*setting) * t * z_0
        return a, (1 - (1 - sigma_1) * t) * z_0 + t * xi, xi, slope

    t = 0.02 + 0.46 * draw.uniform(50, 1) + 0.5 * (draw.uniform(50, 1) > 0.5)  # away from the knots
    before, after = path(t - step), path(t + step)
    va, vz = tubes.latent_velocity(*path(t), t, *setting)
    np.testing.assert_allclose((after[0] - before[0]) / (2 * step), va, atol=1e-7)
    np.testing.assert_allclose((after[1] - before[1]) / (2 * step), vz, atol=1e-7)


def test_paths_have_the_covariance_of_the_tube() -> None:
    """Carried by the field from t = 0, samples arrive with the closed form's moments."""
    setting, chunk, steps = SETTINGS[0], knots(0.1, 0.5, -0.2), 100
    draw = Draw(2)
    a, z = 0.1 + 0.1 * draw.normal(40_000, 1), draw.normal(40_000, 1)
    for i in range(steps):
        t = th.full_like(a, (i + 0.5) / steps)
        xi, slope = tubes.segment(chunk.expand(len(a), -1, -1), t)
        half = [part / (2 * steps) for part in tubes.latent_velocity(a, z, xi, slope, t - 0.5 / steps, *setting)]
        va, vz = tubes.latent_velocity(a + half[0], z + half[1], xi, slope, t, *setting)
        a, z = a + va / steps, z + vz / steps
    covariance = [part.item() for part in tubes.latent_covariance(column(1.0), *setting)]
    np.testing.assert_allclose([a.mean(), z.mean()], [-0.2, -0.2], atol=0.01)
    found = np.cov(th.cat([a, z], dim=1).T.numpy())
    np.testing.assert_allclose([found[0, 0], found[0, 1], found[1, 1]], covariance, rtol=0.04)


# The losses, against a second implementation in float64.


@dataclass
class Variant:
    action_dim: int = 3
    horizon: int = 4
    n_obs: int = 2
    stochastic: bool = False
    k: float = 2.0
    sigma_0: float = 0.2
    sigma_1: float = 0.4
    learning_rate: float = 1e-3
    tau: float = 1.0

    def model(self) -> StreamingFlow:
        model = StreamingFlow(
            "FlowPolicy",
            box_env(OBS_DIM, self.action_dim),
            self.learning_rate,
            horizon_length=self.horizon,
            n_obs_steps=self.n_obs,
            stochastic=self.stochastic,
            k=self.k,
            sigma_0=self.sigma_0,
            sigma_1=self.sigma_1,
            policy_kwargs={"net_arch": (24, 16), "encode_time_dim": 8},
            device="cpu",
            seed=0,
        )
        generator = th.Generator().manual_seed(1)
        with th.no_grad():
            for parameter in model.policy.parameters():
                parameter.add_(0.4 * th.randn(parameter.shape, generator=generator))
        return model

    def batch(self, seed: int, dtype: th.dtype = F64) -> tuple[Batch, StreamingFlowNoise]:
        draw = Draw(seed, dtype)
        n = self.action_dim
        batch = draw.batch(n)._replace(
            observations=draw.normal(BATCH * self.n_obs, OBS_DIM),
            actions=draw.tensor(draw.rng.uniform(-1, 1, (BATCH, (self.horizon + 1) * n))),
        )
        z_0 = draw.normal(BATCH, n)
        return batch, StreamingFlowNoise(draw.uniform(BATCH, 1), draw.normal(BATCH, n), z_0 if self.stochastic else z_0[:, :0])


VARIANTS = {
    "deterministic": Variant(),
    "no gain": Variant(k=0.0),
    "one observation, one action, one coordinate": Variant(action_dim=1, horizon=1, n_obs=1, k=0.5),
    "stochastic": Variant(stochastic=True),
    "stochastic, no gain": Variant(stochastic=True, k=0.0, n_obs=3),
}


class Reference(Transcription):
    """Sections 3 and 7, sample by sample."""

    owners: ClassVar[dict[str, str]] = {"flow": "loss"}
    targets: ClassVar[dict[str, str]] = {"average": "flow"}
    variant: Variant

    def field(self, network: str, history: th.Tensor, point: th.Tensor, t: float) -> th.Tensor:
        """Of one sample: the time is embedded by four sines, then four cosines, of 100 t times 1 to 1/10000."""
        angles = [100 * t * 10_000 ** (-i / 3) for i in range(4)]
        embedded = th.tensor([*map(math.sin, angles), *map(math.cos, angles)], dtype=F64)
        return self.mlp(network, th.cat([history, point, embedded]).unsqueeze(0))[0]

    def losses(self, batch: Batch, noise: StreamingFlowNoise) -> dict[str, th.Tensor]:
        v, total, count = self.variant, th.zeros((), dtype=F64), 0
        sigma_r = math.sqrt(max(v.sigma_1**2 - v.sigma_0**2 * math.exp(-2 * v.k), 0.0))
        for b in range(BATCH):
            t = noise.t[b].item()
            chunk = batch.actions[b].view(v.horizon + 1, v.action_dim)
            j = min(math.floor(t * v.horizon), v.horizon - 1)
            d = v.horizon * (chunk[j + 1] - chunk[j])
            x = chunk[j] + (t * v.horizon - j) * (chunk[j + 1] - chunk[j])
            e = v.sigma_0 * math.exp(-v.k * t) * noise.eta[b]
            point, target = x + e, d - v.k * e
            if v.stochastic:
                z_0, left = noise.z_0[b], 1 - (1 - v.sigma_1) * t
                point = th.cat([point + sigma_r * t * z_0, left * z_0 + t * x])
                target = th.cat([target + sigma_r * z_0, x + t * d - (1 - v.sigma_1) * z_0])
            history = batch.observations[b * v.n_obs : (b + 1) * v.n_obs].reshape(-1)
            total = total + ((self.field("flow", history, point, t) - target) ** 2).sum()
            count += len(target)
        return {"loss": total / count}

    def update(self, batch: Batch, noise: StreamingFlowNoise) -> None:
        self.variant.tau = (self.n_updates + 1) ** -0.75  # the share of the newest weights
        super().update(batch, noise)


@pytest.fixture
def exact_gelu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "SMALL", 0)


@pytest.mark.parametrize("name", VARIANTS)
def test_losses_are_the_equations(name: str, exact_gelu: None) -> None:
    variant = VARIANTS[name]
    model = variant.model()
    model.policy.double()
    batch, noise = variant.batch(0)
    loss, metrics = model.loss(batch, noise)
    assert loss.item() == pytest.approx(Reference(model, variant).losses(batch, noise)["loss"].item(), rel=1e-12)
    assert metrics["tube_loss"] == loss
    if variant.stochastic:
        assert (metrics["action_loss"] + metrics["latent_loss"]).item() / 2 == pytest.approx(loss.item())


@pytest.mark.parametrize("name", VARIANTS)
def test_updates_are_adam_and_the_average(name: str, exact_gelu: None) -> None:
    variant = VARIANTS[name]
    model = variant.model()
    model.policy.double()
    reference = Reference(model, variant)
    for seed in range(6):
        batch, noise = variant.batch(seed)
        model.update(batch, noise)
        reference.update(batch, noise)
    for parameter_name, parameter in model.policy.named_parameters():
        np.testing.assert_allclose(parameter.detach(), reference.parameters[parameter_name].detach(), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(("updates", "decay"), [(100, 0.9686), (1_000, 0.9944), (10_000, 0.9990), (10**8, 0.9999)])
def test_the_average_forgets_by_a_power(updates: int, decay: float) -> None:
    """The published power law, and its cap."""
    policy = (model := VARIANTS["deterministic"].model()).policy
    policy.n_averaged.fill_(updates)
    with th.no_grad():
        for average, latest in zip(policy.average.parameters(), policy.flow.parameters(), strict=True):
            average.fill_(1.0)
            latest.fill_(0.0)
    model.update_targets()
    assert next(iter(policy.average.parameters())).mean().item() == pytest.approx(decay, abs=5e-5)


# The published network.


def test_the_published_network_has_its_size() -> None:
    """Of Push-T with states: parameters that see data, and with those of the kernels beside their centers."""
    net = ModulatedMLP(n_features=2 * 5, dim=2, widths=(256, 512, 1024), encode_time_dim=256)
    live = sum(parameter.numel() for parameter in net.parameters())
    kernels = sum(block.linear.weight.numel() for block in net.modules() if isinstance(block, Block))
    assert (live, live + 4 * kernels) == (18_361_858, 63_714_818)


def test_a_kernel_over_one_action_is_its_center() -> None:
    """A residual block with convolutions of length 5, as published, has the outputs of ours with their centers as weights."""
    th.manual_seed(0)
    ours, x, condition = ResidualBlock(16, 32, 7), th.randn(5, 16), th.randn(5, 7)
    for parameter in ours.parameters():
        th.nn.init.normal_(parameter)

    def convolved(block: Block, inputs: th.Tensor) -> th.Tensor:
        n_out, n_in = block.linear.weight.shape
        kernel = th.nn.Conv1d(n_in, n_out, 5, padding=2)
        with th.no_grad():
            kernel.weight[:, :, 2], kernel.bias[:] = block.linear.weight, block.linear.bias
        normed = th.nn.functional.group_norm(kernel(inputs), 8, block.norm.weight, block.norm.bias)
        return normed * th.tanh(th.nn.functional.softplus(normed))

    scale, shift = (condition @ ours.modulation.weight.T + ours.modulation.bias)[:, :, None].chunk(2, dim=1)
    expected = convolved(ours.second, scale * convolved(ours.first, x[:, :, None]) + shift)[:, :, 0]
    expected = expected + x @ ours.skip.weight.T + ours.skip.bias
    th.testing.assert_close(ours(x, condition), expected, rtol=1e-4, atol=1e-4)


def test_the_published_network_starts_as_convolutions_do() -> None:
    bound = 1 / math.sqrt(5 * 64)
    block = Block(64, 512)
    for parameter in (block.linear.weight, block.linear.bias):
        assert bound * 0.98 < parameter.abs().max() <= bound
        assert parameter.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("stochastic", [pytest.param(False, marks=pytest.mark.nightly), True])
def test_the_published_network_streams(stochastic: bool, tmp_path: Path) -> None:
    """It depends on history, action, latent and time, learns, and is saved."""
    kwargs = {"net_arch": [8, 16, 24], "encode_time_dim": 8, "modulated": True}
    data = collect(pendulum)
    model = StreamingFlow(
        "FlowPolicy", pendulum(), 1e-3, dataset=data, stochastic=stochastic, cosine=False, policy_kwargs=kwargs, seed=0
    )
    net = model.policy.flow.net
    inputs = [th.randn(1, n) for n in (6, 2 if stochastic else 1, 1)]
    before = net(*inputs)
    for i, part in enumerate(inputs):
        for j in range(part.shape[1]):
            moved = [other.clone() for other in inputs]
            moved[i][0, j] += 0.5
            assert not th.allclose(net(*moved), before), (i, j)
    batch, noise = model.sample_batch(16), model.draw_noise(16)
    losses = [model.update(batch, noise)["tube_loss"].item() for _ in range(100)]
    assert losses[-1] < 0.9 * losses[0]
    assert all(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in net.parameters())
    model.save(tmp_path / "model")
    loaded, states = StreamingFlow.load(tmp_path / "model"), [None, None]
    for observation in data["observations"][:12]:
        one, states[0] = model.predict(observation, states[0], deterministic=True)
        two, states[1] = loaded.predict(observation, states[1], deterministic=True)
        np.testing.assert_array_equal(one, two)


def test_widths_that_make_no_sense() -> None:
    for kwargs, message in (({"net_arch": []}, "`net_arch` is empty"), ({"encode_time_dim": 0}, "`encode_time_dim` is 0")):
        with pytest.raises(ValueError, match=message):
            StreamingFlow("FlowPolicy", pendulum(), policy_kwargs={"modulated": True, **kwargs})


# What is drawn from the data.


def trajectories(lengths: tuple[int, ...] = (5, 1, 3), **extra: Any) -> dict[str, np.ndarray]:
    """Row ``i`` observes ``(i, -i)`` and does ``i / 100``."""
    n = sum(lengths)
    ends = np.zeros(n, bool)
    ends[np.cumsum(lengths) - 1] = True
    rows = np.arange(n, dtype=np.float32)
    return {"observations": np.stack([rows, -rows], 1), "actions": rows[:, None] / 100, "terminals": ends, **extra}


def buffer_of(data: dict[str, np.ndarray]) -> OfflineBuffer:
    return OfflineBuffer(OfflineDataset.from_dict(data), spaces.Box(-100, 100, (2,)), spaces.Box(-1, 1, (1,)))


def test_windows_stay_in_their_trajectory() -> None:
    """Before the start the first observation is repeated, past the end the last action."""
    window = buffer_of(trajectories()).window(th.arange(9), 3, 4)
    histories = window.observations[:, 0].view(9, 3).int().tolist()
    assert histories == [[0, 0, 0], [0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4], [5, 5, 5], [6, 6, 6], [6, 6, 7], [6, 7, 8]]
    actions = (window.actions[:, :, 0] * 100).round().int().tolist()
    first, second = [[0, 1, 2, 3], [1, 2, 3, 4], [2, 3, 4, 4], [3, 4, 4, 4], [4, 4, 4, 4]], [[5, 5, 5, 5]]
    assert actions == [*first, *second, [6, 7, 8, 8], [7, 8, 8, 8], [8, 8, 8, 8]]
    assert window.has_previous[:, 0].tolist() == [False, True, True, True, True, False, False, True, True]
    previous = (window.previous_actions[:, 0] * 100).round().int()
    assert previous[window.has_previous[:, 0]].tolist() == [0, 1, 2, 3, 6, 7]


def test_windows_count_without_rows_that_are_no_transitions() -> None:
    """The last row of each trajectory has no action here: no window reaches it, and none begins with it."""
    data = trajectories((4, 3), valids=np.array([1, 1, 1, 0, 1, 1, 0]))
    buffer = buffer_of(data)
    window = buffer.window(th.arange(5), 2, 3)
    assert (window.actions[:, :, 0] * 100).round().int().tolist() == [[0, 1, 2], [1, 2, 2], [2, 2, 2], [4, 5, 5], [5, 5, 5]]
    assert window.has_previous[:, 0].tolist() == [False, True, True, False, True]
    np.testing.assert_allclose(buffer.first_actions()[:, 0], [0.0, 0.04], atol=1e-7)


def clock_model(data: dict[str, np.ndarray] | None = None, **kwargs: Any) -> StreamingFlow:
    env = AnySpaces(spaces.Box(-100, 100, (2,)), spaces.Box(-1, 1, (1,)))
    arguments: dict[str, Any] = {"horizon_length": 3, "cosine": False, "policy_kwargs": {"net_arch": [8]}, "seed": 0, **kwargs}
    return StreamingFlow("FlowPolicy", env, dataset=data, **arguments)


def test_knots_begin_with_the_last_action() -> None:
    """At the start of an episode with the mean of the data's first actions, where ``predict`` starts too."""
    model = clock_model(trajectories())
    assert model.policy.start_action.item() == pytest.approx((0.00 + 0.05 + 0.06) / 3)
    batch = model.draw_from(model.offline_buffer, th.tensor([0, 2, 7]))
    start = model.policy.start_action.item()
    np.testing.assert_allclose(
        batch.actions, [[start, 0, 0.01, 0.02], [0.01, 0.02, 0.03, 0.04], [0.06, 0.07, 0.08, 0.08]], atol=1e-6
    )
    assert batch.observations[:, 0].tolist() == [0, 0, 1, 2, 6, 7]
    t = th.tensor([[0.1], [0.9], [0.9]])
    xi, slope = model.curve(batch, t)
    assert slope[2].item() == 0 and xi[2].item() == pytest.approx(0.08), "past the end nothing moves"
    assert slope[1].item() == pytest.approx(0.03)


def test_knots_begin_at_the_observed_position() -> None:
    """Given which coordinates hold it, in the units of actions."""
    env = AnySpaces(spaces.Dict({"arm": spaces.Box(-9, 9, (3,)), "block": spaces.Box(0, 1, (2,))}), spaces.Box(-4, 8, (2,)))
    data = collect(lambda: env, 30)
    model = StreamingFlow("FlowPolicy", env, dataset=data, start_from={"arm": [2, 0]}, policy_kwargs={"net_arch": [8]})
    arm = data["observations"]["arm"]
    expected = np.clip((arm[:, [2, 0]] - 2) / 6, -1, 1)
    knots_drawn = model.draw_from(model.offline_buffer, th.arange(30)).actions.view(30, 17, 2)
    starts = [0, 10, 20]
    np.testing.assert_allclose(knots_drawn[starts, 0], expected[starts], atol=1e-6)
    assert abs(knots_drawn[1:10, 0].numpy() - expected[1:10]).max() > 0.1, "later ones begin with the action before"
    state = model.predict({key: value[:4] for key, value in data["observations"].items()}, deterministic=True)[1]
    field = model.policy.field(model.policy.average, th.as_tensor(state.context))
    velocity = field(th.as_tensor(expected[:4]), th.zeros(4, 1)).detach().numpy()
    np.testing.assert_allclose(state.actions, np.clip(expected[:4] + velocity / 16, -1, 1), atol=1e-6)


def test_images_of_a_history_are_shifted_alike() -> None:
    """So that a shift is no motion. Offsets differ from history to history."""
    env = AnySpaces(spaces.Box(0, 255, (3, 12, 12), np.uint8), spaces.Box(-1, 1, (1,)))
    still = collect(lambda: env, 40)
    still["observations"][:] = still["observations"][:1]
    kwargs = {"net_arch": [8], "features_extractor_kwargs": {"cnn_output_dim": 4}}
    model = StreamingFlow("FlowPolicy", env, dataset=still, n_obs_steps=3, crop_probability=1.0, policy_kwargs=kwargs, seed=0)
    images = model.sample_batch(16).observations.view(16, 3, 3, 12, 12)
    assert (images == images[:, :1]).all()
    assert len(np.unique(images[:, 0].flatten(1).numpy(), axis=0)) > 8


# Streaming.


class Counter(gym.Env):
    """Tells the time in the episode and which episode it is; episodes are of a length of their own."""

    observation_space = spaces.Box(-1e3, 1e3, (2,))
    action_space = spaces.Box(-10.0, 10.0, (1,))

    def __init__(self, length: int) -> None:
        self.length, self.episode, self.actions = length, 0, [[]]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self.time, self.episode = 0, self.episode + 1
        if self.actions[-1]:
            self.actions.append([])
        return np.array([self.time, self.episode], np.float32), {}

    def step(self, action: np.ndarray) -> Any:
        self.actions[-1].append(action.item())
        self.time += 1
        return np.array([self.time, self.episode], np.float32), 0.0, False, self.time >= self.length, {}


def counting_model(horizon: int, n_action_steps: int, step: float = 0.4) -> StreamingFlow:
    """Its field is that of a demonstration that moves by ``step`` (in the units of the environment) at each action."""
    kwargs = {"net_arch": [4], "encode_time_dim": 8}
    model = StreamingFlow(
        "FlowPolicy", Counter(20), horizon_length=horizon, n_action_steps=n_action_steps, k=0.0, policy_kwargs=kwargs
    )
    with th.no_grad():
        last = model.policy.average.net.layers[-1]
        last.weight.zero_()
        last.bias.fill_(horizon * step / 10)
        model.policy.start_action.fill_(-0.1)
    return model


@pytest.mark.parametrize("n_action_steps", [1, 3, 8])
def test_actions_do_not_lag_behind(n_action_steps: int) -> None:
    """What is sent is one step further each time, also where one plan follows another, in episodes of any length."""
    envs = [Counter(7), Counter(12)]
    vec_env = DummyVecEnv([lambda env=env: env for env in envs])
    evaluate_policy(counting_model(8, n_action_steps), vec_env, n_eval_episodes=6, deterministic=True, warn=False)
    for env in envs:
        assert len(env.actions) >= 3  # three are asked for; those beyond them are not told where they begin
        for episode in env.actions[:3]:
            np.testing.assert_allclose(episode, -1 + 0.4 * np.arange(1, env.length + 1), atol=1e-4)


def test_what_is_clipped_is_carried_on() -> None:
    """The next action starts from what was executed, not from beyond the bounds."""
    model, state = counting_model(4, 2, step=3.0), None
    for _ in range(10):
        action, state = model.predict(np.zeros(2, np.float32), state, deterministic=True)
    assert action.item() == 10.0 and state.actions.item() == 1.0


def random_model(stochastic: bool = False, env: gym.Env | None = None, **kwargs: Any) -> StreamingFlow:
    """A field that depends on everything, gently, so that actions stay inside."""
    policy_kwargs = {"net_arch": [16, 16], "encode_time_dim": 8, **kwargs.pop("policy_kwargs", {})}
    env = env or box_env(3, 2)
    model = StreamingFlow(
        "FlowPolicy", env, stochastic=stochastic, policy_kwargs=policy_kwargs, seed=0, device="cpu", **kwargs
    )
    with th.no_grad():
        model.policy.start_action.copy_(th.tensor([0.1, -0.2]))
        for network in (model.policy.average, model.policy.flow):
            for parameter in network.net.parameters():
                parameter.mul_(0.7).add_(0.03 * th.randn(parameter.shape))
    return model


@pytest.mark.parametrize("stochastic", [False, True])
@pytest.mark.parametrize("n_obs", [1, 3])
def test_streaming_gives_the_numbers_of_whole_chunks(stochastic: bool, n_obs: int) -> None:
    """Twenty calls of ``predict`` are two and a half plans, each integrated at once from its history by hand."""
    model = random_model(stochastic, n_obs_steps=n_obs)
    observations = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    sent, state = [], None
    for i, observation in enumerate(observations):
        action, state = model.predict(observation, state, np.array([i == 0]), deterministic=True)
        sent.append(action)
    net, planned = model.policy.average.net, []
    point = th.zeros(1, 4 if stochastic else 2)
    point[0, :2] = model.policy.start_action
    for begin in (0, 8, 16):
        history = th.as_tensor(np.concatenate([observations[max(begin - age, 0)] for age in reversed(range(n_obs))]))[None]
        point[0, 2:] = 0.0  # z_0, in each plan anew
        with th.no_grad():
            for j in range(min(8, 20 - begin)):
                point = point + net(net.context(history), point, 100 * th.full((1, 1), j / 16)) / 16
                planned.append(point[0, :2].numpy().copy())
    assert abs(np.array(sent)).max() < 1, "nothing was clipped"
    np.testing.assert_allclose(sent, planned, atol=1e-6)
    assert len(np.unique(np.array(sent)[:, 0])) == 20


def counted(model: StreamingFlow) -> dict[str, list[int]]:
    """How many rows each evaluation of the field, and each encoding, has."""
    calls: dict[str, list[int]] = {"field": [], "encoder": []}
    network = model.policy.average
    network.net.register_forward_hook(lambda module, inputs, output: calls["field"].append(len(output)))
    network.features_extractor.register_forward_hook(lambda module, inputs, output: calls["encoder"].append(len(output)))
    return calls


def test_one_evaluation_an_action_and_one_encoding_a_plan() -> None:
    """Of images too, for all environments together, and only of those that plan."""
    env = AnySpaces(spaces.Box(0, 255, (8, 8, 3), np.uint8), spaces.Box(-1, 1, (2,)))
    kwargs = {"features_extractor_kwargs": {"cnn_output_dim": 4}}
    model = random_model(env=env, horizon_length=6, n_action_steps=3, n_obs_steps=2, policy_kwargs=kwargs)
    calls = counted(model)
    rng, state = np.random.default_rng(0), None
    for i in range(7):
        starts = np.array([i == 0, i in (0, 2)])
        _, state = model.predict(rng.integers(0, 256, (2, 3, 8, 8), dtype=np.uint8), state, starts)
    assert calls["field"] == [2] * 7
    # Both plan at first, then the second one where its episode begins and every third call after it; two frames each.
    assert calls["encoder"] == [4, 2, 2, 2, 2]


def test_plans_in_evaluate_policy() -> None:
    """Episodes of 7 steps with plans of 3: three plans each, in either environment, and one evaluation a step."""
    model = counting_model(6, 3)
    calls = counted(model)
    evaluate_policy(model, DummyVecEnv([lambda: Counter(7)] * 2), n_eval_episodes=4, warn=False)
    assert sum(calls["encoder"]) == 2 * 4 * 3  # two frames each
    assert calls["field"] == [2] * 14


@pytest.mark.parametrize("stochastic", [False, True])
def test_one_environment_starts_over_alone(stochastic: bool) -> None:
    """What begins in one row changes no other one, and the state that was passed in stays as it was."""
    model = random_model(stochastic, horizon_length=6, n_action_steps=4)
    observations = np.random.default_rng(0).normal(size=(4, 3, 3)).astype(np.float32)
    first = None
    for i in range(2):
        _, first = model.predict(observations[i], first, np.full(3, i == 0))
    before = pickle.dumps(first)
    go_on, without = model.predict(observations[2], first, np.zeros(3, bool), deterministic=True)
    reset, with_reset = model.predict(observations[2], first, np.array([False, True, False]), deterministic=True)
    assert pickle.dumps(first) == before
    for field in first._fields:
        same = [np.array_equal(a, b) for a, b in zip(getattr(without, field), getattr(with_reset, field), strict=True)]
        assert same[0] and same[2] and ((field == "latents" and not stochastic) or not same[1]), field
    assert np.array_equal(go_on[[0, 2]], reset[[0, 2]])
    assert with_reset.cursor.tolist() == [3, 1, 3]
    fresh, _ = model.predict(observations[2, 1], deterministic=True)
    np.testing.assert_allclose(reset[1], fresh, atol=1e-6)
    np.testing.assert_array_equal(with_reset.frames[1], observations[2, [1, 1]])
    np.testing.assert_array_equal(with_reset.frames[0], observations[1:3, 0])


def test_dictionaries_stream_as_their_parts() -> None:
    """A dictionary of a vector in two parts gives the actions of the vector."""
    parts = spaces.Dict({"a": spaces.Box(-9, 9, (1,)), "b": spaces.Box(-9, 9, (2,))})
    whole, split = random_model(), random_model(env=AnySpaces(parts, spaces.Box(-1, 1, (2,))))
    split.policy.load_state_dict(
        {**split.policy.state_dict(), **{k: v for k, v in whole.policy.state_dict().items() if not k.startswith("normalizer")}}
    )
    observations, states = np.random.default_rng(0).normal(size=(10, 2, 3)).astype(np.float32), [None, None]
    for i, rows in enumerate(observations):
        starts = np.array([i == 0, i in (0, 4)])
        one, states[0] = whole.predict(rows, states[0], starts, deterministic=True)
        two, states[1] = split.predict({"a": rows[:, :1], "b": rows[:, 1:]}, states[1], starts, deterministic=True)
        np.testing.assert_array_equal(one, two)


def test_what_deterministic_means() -> None:
    """Without latents it is the exact start, and beside it otherwise; the latent is zero, and random otherwise."""
    observation = np.zeros((2_000, 3), np.float32)
    for stochastic in (False, True):
        policy = random_model(stochastic, sigma_0=0.2).policy
        spread = policy.predict(observation)[1]
        exact = policy.predict(observation, deterministic=True)[1]
        assert np.ptp(exact.actions, axis=0).max() == 0
        if stochastic:
            assert spread.latents.std() == pytest.approx(1, abs=0.1), "a step of the field from N(0, I)"
            assert spread.actions.std(axis=0).max() < 0.1
        else:
            np.testing.assert_allclose(spread.actions.std(axis=0), 0.2, rtol=0.15)


def test_the_zoo_evaluates_as_the_paper() -> None:
    """From the exact start, and with random latents."""
    assert not acts_by_sampling("streaming_flow") and acts_by_sampling("streaming_flow_stochastic")


# Learning.


@pytest.mark.slow
def test_both_ways_are_learned() -> None:
    """Two demonstrations from one place: a small network goes either way half of the time, and to the end of it."""
    model = StreamingFlow(
        "FlowPolicy",
        box_env(1, 1),
        1e-2,
        n_action_steps=16,
        n_obs_steps=1,
        sigma_0=0.1,
        policy_kwargs={"net_arch": [64, 64], "encode_time_dim": 8},
        seed=0,
        device="cpu",
    )
    chunks = two_ways(steps=16).float()[:, :, 0]
    rows = th.arange(256) % 2
    scalars = th.ones(256)
    batch = Batch(th.zeros(256, 1), chunks[rows], scalars, scalars, scalars, th.zeros(256, 1), scalars)
    for _ in range(2_000):
        model.update(batch, model.draw_noise(256))
    th.manual_seed(0)
    state, starts = None, np.ones(2_000, bool)
    for i in range(16):
        actions, state = model.predict(np.zeros((2_000, 1), np.float32), state, starts if i == 0 else ~starts)
    up = actions[:, 0] > 0
    assert up.mean() == pytest.approx(0.5, abs=0.05)
    assert actions[up].mean() == pytest.approx(0.75, abs=0.04) and actions[~up].mean() == pytest.approx(-0.75, abs=0.04)
    assert (abs(actions) > 0.5).mean() > 0.95


def test_the_schedule() -> None:
    """Up in a straight line, down as half a cosine; beyond the end it stays at zero."""
    schedule = WarmUpCosine(lambda left: 2.0, 0.2)
    values = [schedule(left) for left in (1.0, 0.9, 0.8, 0.4, 0.0, -0.1)]
    np.testing.assert_allclose(values, [0.0, 1.0, 2.0, 1.0, 0.0, 0.0], atol=1e-12)
    assert WarmUpCosine(lambda left: left, 0.0)(0.5) == pytest.approx(0.25)


class Rates(BaseCallback):
    """Remembers the learning rate."""

    def __init__(self) -> None:
        super().__init__()
        self.rates: list[float] = []

    def _on_step(self) -> bool:
        self.rates.append(self.model.policy.optimizer.param_groups[0]["lr"])
        return True


def test_the_schedule_goes_on_after_a_resume(tmp_path: Path) -> None:
    """A run that was cut has the learning rates of one that was not."""

    def make() -> StreamingFlow:
        return StreamingFlow(
            "FlowPolicy", pendulum(), 1e-3, dataset=data, warm_up=0.2, batch_size=8, policy_kwargs={"net_arch": [8]}, seed=0
        )

    data = collect(pendulum)
    whole, resumed = Rates(), Rates()
    make().learn(50, callback=whole)
    with pytest.raises(RuntimeError):
        make().learn(50, callback=[TrainingCheckpoint(tmp_path, 10), Rates(), Raising(25, RuntimeError)])
    model = StreamingFlow.resume(tmp_path, pendulum(), dataset=data)
    assert model.num_timesteps == 20
    model.learn(50, callback=[TrainingCheckpoint(tmp_path, 10), resumed, Raising(10**9, RuntimeError)])
    assert whole.rates[:2] == [0.0, pytest.approx(1e-4)] and max(whole.rates) == pytest.approx(1e-3)
    assert whole.rates[-1] < 1e-5
    assert resumed.rates == whole.rates, "callbacks remember what was before the checkpoint"


def test_an_update_by_hand_has_the_full_learning_rate() -> None:
    """The warm-up is of ``learn``."""
    model = StreamingFlow("FlowPolicy", pendulum(), 1e-3, dataset=collect(pendulum), policy_kwargs={"net_arch": [8]})
    assert model.policy.optimizer.param_groups[0]["lr"] == 1e-3 and model.lr_schedule(1) == 0


# Data without an environment, and what cannot be done.


SPACES: dict[str, Callable[[], gym.Env]] = {
    "vectors": pendulum,
    "images": lambda: AnySpaces(spaces.Box(0, 255, (8, 8, 3), np.uint8), spaces.Box(-2, 3, (2,))),
    "dictionaries": lambda: AnySpaces(
        spaces.Dict({"arm": spaces.Box(-1, 1, (2,)), "camera": spaces.Box(0, 255, (8, 8, 3), np.uint8)}),
        spaces.Box(-1, 1, (2,)),
    ),
}


@pytest.mark.parametrize("name", SPACES)
def test_data_alone_is_enough(name: str, tmp_path: Path) -> None:
    """The spaces are those of the data; the model acts, is saved, and trains on; an environment it has none of."""
    make = SPACES[name]
    data = collect(make, 40)
    del data["rewards"]
    kwargs: dict[str, Any] = {"net_arch": [8], "features_extractor_kwargs": {"cnn_output_dim": 4}}
    model = StreamingFlow("FlowPolicy", dataset=data, policy_kwargs=kwargs, batch_size=8).learn(3)
    low, high = data["actions"].min(axis=0), data["actions"].max(axis=0)
    np.testing.assert_array_equal([model.action_space.low, model.action_space.high], [low, high])
    assert model.n_offline_updates == 3
    with pytest.raises(RuntimeError, match=r"no environment.*evaluate_policy\(model, env\)"):
        evaluate_policy(model, model.get_env(), n_eval_episodes=1)
    mean, _ = evaluate_policy(model, DummyVecEnv([make]), n_eval_episodes=1, warn=False)
    assert np.isfinite(mean)
    model.save(tmp_path / "model")
    loaded = StreamingFlow.load(tmp_path / "model", dataset=data).learn(4, reset_num_timesteps=False)
    assert loaded.n_offline_updates == 7


def test_spaces_of_replay_buffers_and_of_constant_actions() -> None:
    other = SAC("MlpPolicy", pendulum(), buffer_size=50, policy_kwargs={"net_arch": [4]}, device="cpu").learn(30)
    env = NoEnvironment.of(other.replay_buffer)
    assert (env.observation_space, env.action_space) == (other.observation_space, other.action_space)
    data = trajectories((3,)) | {"actions": np.array([[0.0, 5.0], [1.0, 5.0], [2.0, 5.0]])}
    space = NoEnvironment.of(data).action_space
    np.testing.assert_allclose(
        [space.low, space.high], [[0, 4.995], [2, 5.005]], rtol=1e-6
    )  # a narrow range of what is constant


def test_learning_needs_data() -> None:
    with pytest.raises(ValueError, match=r"StreamingFlow trains on a dataset.*`dataset`"):
        StreamingFlow("FlowPolicy", "Pendulum-v1").learn(5)
    with pytest.raises(ValueError, match="neither an environment nor a dataset"):
        StreamingFlow("FlowPolicy")


def test_there_is_no_online_phase() -> None:
    with pytest.raises(TypeError, match="offline_steps"):
        StreamingFlow("FlowPolicy", pendulum(), dataset=collect(pendulum), offline_steps=5)


def test_frames_are_not_stacked_twice() -> None:
    """By the environment, and by the history."""
    single = AnySpaces(spaces.Box(0, 255, (8, 8, 1), np.uint8), spaces.Box(-1, 1, (1,)))
    stacked = VecFrameStack(DummyVecEnv([lambda: single]), 3)
    kwargs = {"net_arch": [8], "features_extractor_kwargs": {"cnn_output_dim": 4}}
    data = collect(lambda: single, 30)
    del data["next_observations"]
    with pytest.raises(ValueError, match=r"stacks frames.*`n_obs_steps=2`"):
        StreamingFlow("FlowPolicy", stacked, dataset=data, policy_kwargs=kwargs)
    StreamingFlow("FlowPolicy", stacked, dataset=data, n_obs_steps=1, policy_kwargs=kwargs).sample_batch(4)


def test_positions_are_not_normalized() -> None:
    env = VecNormalize(DummyVecEnv([pendulum]))
    with pytest.raises(ValueError, match=r"`start_from`.*VecNormalize.*`normalize_observations`"):
        StreamingFlow("FlowPolicy", env, dataset=collect(pendulum), start_from=[2])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": -1.0}, "`k` is -1.0"),
        ({"k": 4.0}, "`k` is 4.0.*`horizon_length`, 4"),
        ({"sigma_0": 0.0}, "`sigma_0` is 0.0"),
        ({"stochastic": True, "sigma_0": 0.5, "sigma_1": 0.1, "k": 0.0}, "`sigma_1` is 0.1.*0.5"),
        ({"warm_up": 1.0}, "`warm_up` is 1.0"),
        ({"n_obs_steps": 0}, "`n_obs_steps` is 0"),
        ({"n_action_steps": 0}, "`n_action_steps` is 0"),
        ({"n_action_steps": 5}, "`n_action_steps` is 5.*`horizon_length`, 4"),
        ({"start_from": [0, 1]}, r"`start_from` is \[0, 1\]; expected 1 indices from 0 to 2"),
        ({"start_from": {"arm": [0]}}, "`start_from` is {'arm': .*must name coordinates of one vector"),
        ({"policy_kwargs": {"horizon_length": 2}}, "`horizon_length` in `policy_kwargs` is 2"),
        ({"policy_kwargs": {"best_of_n": 2}}, "`best_of_n` in `policy_kwargs` is 2"),
    ],
    ids=str,
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    """The constructor raises an error that names the argument and its value."""
    small: dict[str, Any] = {"policy_kwargs": {"net_arch": [8]}, "device": "cpu", "horizon_length": 4}
    with pytest.raises(ValueError, match=message):
        StreamingFlow("FlowPolicy", pendulum(), **{**small, **arguments})
