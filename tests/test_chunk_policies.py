"""Chunk policies, which streaming is compared with: closed forms of their samplers, their losses, and how they plan."""

import math
import pickle
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
import torch as th
import yaml
from conformance.environments import AnySpaces, collect, pendulum
from gymnasium import spaces
from stable_baselines3.common import callbacks
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv
from test_streaming_flow import F64, Counter, trajectories
from transcription import BATCH, OBS_DIM, Draw, Transcription, box_env

from sb3_flow.baselines import ChunkDiffusion, ChunkFlow, ChunkRegression
from sb3_flow.baselines.chunk_diffusion import ChunkDiffusionNoise, ChunkDiffusionPolicy
from sb3_flow.baselines.chunk_flow import ChunkFlowNoise, ChunkFlowPolicy
from sb3_flow.baselines.chunk_regression import ChunkRegressionNoise
from sb3_flow.baselines.diffusion import cosine_schedule, ddim, ddpm
from sb3_flow.common import networks
from sb3_flow.common.environments import make_env
from sb3_flow.common.type_aliases import Batch
from sb3_flow.envs.pusht import PushTMeasures
from sb3_flow.zoo.algorithms import ALGORITHMS, acts_by_sampling
from sb3_flow.zoo.callbacks import EvalCallback, TrainingClock

CLASSES = [ChunkFlow, ChunkDiffusion, ChunkRegression]
#: Data of one coordinate that is Gaussian: everything about it is known.
MEAN, STD = 0.2, 0.15


# The samplers. What they make of Gaussian data, where the network is exact, has closed forms.


def test_the_schedule() -> None:
    """The numbers of the specification, and the cap of the last factor."""
    schedule = cosine_schedule(100)
    np.testing.assert_allclose(
        [schedule[i] for i in (0, 10, 50, 90, 98)], [0.999369, 0.966717, 0.478265, 0.019544, 0.000243], atol=5e-7
    )
    assert len(schedule) == 100 and schedule[99] == pytest.approx(0.001 * schedule[98])


def share(level: int, n: int = 100) -> float:
    """Of data in the variance of a level below the last one: the products telescope."""

    def f(u: float) -> float:
        return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

    return f((level + 1) / n) / f(0)


def exact_noise(x: th.Tensor, level: int) -> th.Tensor:
    """The mean of the noise in samples of Gaussian data."""
    c = cosine_schedule(100)[level]
    return math.sqrt(1 - c) * (x - math.sqrt(c) * MEAN) / (c * STD**2 + 1 - c)


@pytest.mark.parametrize(("n_steps", "ratio"), [(10, 10), (16, 6), (99, 1)])
def test_ddim_on_gaussian_data(n_steps: int, ratio: int) -> None:
    """Each step shrinks what is left of the mean by a known factor."""
    x = th.tensor([[-1.0], [0.0], [2.0]], dtype=F64)
    top = share((n_steps - 1) * ratio)
    expected = x - math.sqrt(top) * MEAN
    for step in reversed(range(n_steps)):
        c, below = share(step * ratio), share((step - 1) * ratio) if step else 1.0
        factor = math.sqrt(c * below) * STD**2 + math.sqrt((1 - c) * (1 - below))
        expected = expected * factor / (c * STD**2 + 1 - c)
    found = ddim(exact_noise, x, cosine_schedule(100), n_steps, clip=math.inf)
    np.testing.assert_allclose(found, MEAN + expected, rtol=1e-9)
    if n_steps == 99:  # fine steps end in the data's own distribution; the start is short of pure noise by c = 2e-4
        np.testing.assert_allclose(found, MEAN + STD * x, atol=0.02)


def test_ddpm_is_the_posterior_of_each_level() -> None:
    """By Bayes' rule for Gaussians: what is known from the data behind the noise, and from the level above, adds up."""
    draw, schedule = Draw(0), cosine_schedule(100)
    noise = [draw.normal(5, 1) for _ in range(100)]
    x = noise[0]
    for i in range(99, -1, -1):
        c, below = schedule[i], schedule[i - 1] if i else 1.0
        data = (x - math.sqrt(1 - c) * exact_noise(x, i)) / math.sqrt(c)
        if i == 0:
            x = data
            break
        kept = c / below
        precision = 1 / (1 - below) + kept / (1 - kept)
        mean = (math.sqrt(below) * data / (1 - below) + math.sqrt(kept) * x / (1 - kept)) / precision
        x = mean + noise[100 - i] / math.sqrt(precision)
    np.testing.assert_allclose(ddpm(exact_noise, noise, schedule, clip=math.inf), x, rtol=1e-9)


def ddpm_moments() -> tuple[float, float]:
    """Mean and standard deviation at the end: each level is a linear map and noise, so that both can be followed."""
    schedule, mean, variance = cosine_schedule(100), 0.0, 1.0
    for i in range(99, -1, -1):
        c, below = schedule[i], schedule[i - 1] if i else 1.0
        kept = c / below
        of_data, of_x = math.sqrt(below) * (1 - kept) / (1 - c), math.sqrt(kept) * (1 - below) / (1 - c)
        gain = math.sqrt(c) * STD**2 / (c * STD**2 + 1 - c)  # of the data behind the noise
        slope = of_data * gain + of_x
        mean = of_data * (MEAN - gain * math.sqrt(c) * MEAN) + slope * mean
        variance = slope**2 * variance + (1 - kept) * (1 - below) / (1 - c)
    return mean, math.sqrt(variance)


def test_ddpm_samples_gaussian_data() -> None:
    """The smaller variance makes samples a tenth too narrow."""
    mean, std = ddpm_moments()
    assert (mean, std) == (pytest.approx(MEAN, abs=1e-6), pytest.approx(0.9 * STD, rel=0.02))
    draw = Draw(1)
    samples = ddpm(exact_noise, [draw.normal(40_000, 1) for _ in range(100)], cosine_schedule(100), clip=math.inf)
    assert samples.mean().item() == pytest.approx(mean, abs=0.003)
    assert samples.std().item() == pytest.approx(std, rel=0.015)


@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
def test_data_behind_the_noise_is_clipped(sampler: str) -> None:
    """A network whose predicted data is 3 samples 1."""
    schedule = cosine_schedule(100)

    def denoise(x: th.Tensor, level: int) -> th.Tensor:
        return (x - math.sqrt(schedule[level]) * 3) / math.sqrt(1 - schedule[level])

    noise = th.zeros(1, 1, dtype=F64)
    samples = ddpm(denoise, [noise] * 100, schedule) if sampler == "ddpm" else ddim(denoise, noise, schedule, 10)
    assert samples.item() == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("cls", [ChunkFlow, ChunkDiffusion, ChunkRegression])
def test_plans_stay_in_the_box(cls: type) -> None:
    """Whatever the network says: every action of a chunk is in [-1, 1], and those beyond are at its ends."""
    model = cls("FlowPolicy", box_env(1, 2), horizon_length=4, policy_kwargs={"net_arch": [4]}, seed=0)
    policy = model.policy
    with th.no_grad():
        policy.average.net.layers[-1].bias.copy_(th.tensor([30.0, -30.0] * 4))
        context = policy.context(policy.average, policy.first_frames(th.zeros(5, 1)))
        plans = policy.plan(context, th.randn(5, policy.noise_dim, generator=th.Generator().manual_seed(0)))
    towards = -1 if cls is ChunkDiffusion else 1  # it predicts the noise that is taken away
    assert th.equal(plans, towards * th.tensor([1.0, -1.0] * 4).expand(5, -1))


class KnownField(ChunkFlowPolicy):
    """The velocity field of Gaussian data."""

    def field(self, network: Any, context: th.Tensor) -> Any:
        def velocity(x: th.Tensor, t: th.Tensor) -> th.Tensor:
            return MEAN + (t * STD**2 - (1 - t)) / ((1 - t) ** 2 + t**2 * STD**2) * (x - t * MEAN)

        return velocity


class KnownNoise(ChunkDiffusionPolicy):
    """The noise in Gaussian data."""

    def field(self, network: Any, context: th.Tensor) -> Any:
        return lambda x, t: exact_noise(x, round(100 * t[0].item()))


def flow_std(n_steps: int) -> float:
    """What Euler's method leaves of a standard deviation of 1."""
    std = 1.0
    for i in range(n_steps):
        t = i / n_steps
        std *= 1 + (t * STD**2 - (1 - t)) / ((1 - t) ** 2 + t**2 * STD**2) / n_steps
    return std


def ddim_std() -> float:
    ends = ddim(exact_noise, th.tensor([[0.0], [1.0]], dtype=F64), cosine_schedule(100), 10, clip=math.inf)
    return float(ends[1] - ends[0])


@pytest.mark.parametrize(
    ("policy", "cls", "sampler", "std"),
    [
        (KnownField, ChunkFlow, "average", lambda: flow_std(10)),
        (KnownNoise, ChunkDiffusion, "ddpm", lambda: ddpm_moments()[1]),
        (KnownNoise, ChunkDiffusion, "ddim", ddim_std),
    ],
)
def test_plans_are_distributed_as_they_should(policy: Any, cls: type, sampler: str, std: Callable[[], float]) -> None:
    """Where the network is exact, every action of a plan is Gaussian, and its own; `deterministic` takes zero noise."""
    model = cls(policy, box_env(1, 1), horizon_length=4, policy_kwargs={"net_arch": [4]}, seed=0)
    acting = model.policy.with_sampler(sampler)
    th.manual_seed(0)
    observations, state, planned, actions = np.zeros((20_000, 1), np.float32), None, None, []
    for i in range(2):
        action, state = acting.predict(observations, state, np.full(20_000, i == 0))
        actions.append(action[:, 0])
        planned = state.actions
    np.testing.assert_allclose(np.stack(actions, 1), planned[:, :, 0], atol=1e-6)
    assert np.stack(actions).mean(axis=1) == pytest.approx([MEAN, MEAN], abs=0.01)
    assert np.stack(actions).std(axis=1) == pytest.approx([std(), std()], rel=0.03)
    assert abs(np.corrcoef(actions)[0, 1]) < 0.03
    middle = acting.predict(observations[:1], deterministic=True)[0].item()
    assert middle == pytest.approx(MEAN, abs=0.03)


def test_regression_learns_the_mean() -> None:
    """Seven of ten demonstrations go up and three down; regression learns the mean, which is in none of them."""
    model = ChunkRegression(
        "FlowPolicy", box_env(1, 1), 1e-2, n_obs_steps=1, policy_kwargs={"net_arch": [16]}, cosine=False, seed=0
    )
    signs = th.where(th.arange(100) % 10 < 7, 1.0, -1.0)[:, None]
    chunks, scalars = signs * th.linspace(0.05, 0.8, 16), th.ones(100)
    batch = Batch(th.zeros(100, 1), chunks, scalars, scalars, scalars, th.zeros(100, 1), scalars)
    for _ in range(400):
        metrics = model.update(batch, model.draw_noise(100))
    sent, state = [], None
    for _ in range(8):
        action, state = model.predict(np.zeros(1, np.float32), state)
        sent.append(action.item())
    np.testing.assert_allclose(sent, 0.4 * np.linspace(0.05, 0.8, 16)[:8], atol=0.02)
    assert metrics["regression_loss"].item() == pytest.approx(chunks.var(dim=0, unbiased=False).mean().item(), rel=0.02)


# The losses, against a second implementation in float64.


class Variant:
    """Three actions of two coordinates, histories of two observations."""

    action_dim, horizon, n_obs, learning_rate, tau = 2, 3, 2, 1e-3, 1.0

    def __init__(self, cls: type) -> None:
        self.cls = cls

    def model(self) -> Any:
        kwargs = {"net_arch": (24, 16)} | ({} if self.cls is ChunkRegression else {"encode_time_dim": 8})
        model = self.cls(
            "FlowPolicy",
            box_env(OBS_DIM, self.action_dim),
            self.learning_rate,
            horizon_length=self.horizon,
            n_obs_steps=self.n_obs,
            policy_kwargs=kwargs,
            device="cpu",
            seed=0,
        )
        generator = th.Generator().manual_seed(1)
        with th.no_grad():
            for parameter in model.policy.parameters():
                parameter.add_(0.4 * th.randn(parameter.shape, generator=generator))
        return model

    def batch(self, seed: int) -> tuple[Batch, Any]:
        draw = Draw(seed)
        dim = self.horizon * self.action_dim
        batch = draw.batch(dim)._replace(observations=draw.normal(BATCH * self.n_obs, OBS_DIM))
        if self.cls is ChunkFlow:
            return batch, ChunkFlowNoise(draw.uniform(BATCH, 1), draw.normal(BATCH, dim))
        if self.cls is ChunkDiffusion:
            levels = draw.tensor(draw.rng.integers(0, 100, (BATCH, 1)))
            return batch, ChunkDiffusionNoise(levels, draw.normal(BATCH, dim))
        return batch, ChunkRegressionNoise(draw.normal(BATCH, 0))


class Reference(Transcription):
    """Sample by sample."""

    owners: ClassVar[dict[str, str]] = {"flow": "loss"}
    targets: ClassVar[dict[str, str]] = {"average": "flow"}
    variant: Variant

    def network(self, history: th.Tensor, point: th.Tensor, t: float) -> th.Tensor:
        angles = [100 * t * 10_000 ** (-i / 3) for i in range(4)]
        embedded = th.tensor([*map(math.sin, angles), *map(math.cos, angles)], dtype=F64)
        return self.mlp("flow", th.cat([history, point, embedded]).unsqueeze(0))[0]

    def losses(self, batch: Batch, noise: Any) -> dict[str, th.Tensor]:
        v, total = self.variant, th.zeros((), dtype=F64)
        for b in range(BATCH):
            history = batch.observations[b * v.n_obs : (b + 1) * v.n_obs].reshape(-1)
            x = batch.actions[b]
            if v.cls is ChunkFlow:
                t, x_0 = noise.t[b].item(), noise.x_0[b]
                error = self.network(history, (1 - t) * x_0 + t * x, t) - (x - x_0)
            elif v.cls is ChunkDiffusion:
                i, epsilon = int(noise.levels[b].item()), noise.epsilon[b]
                # The schedule is kept in single precision.
                c = th.tensor(share(i) if i < 99 else 0.001 * share(98), dtype=th.float32).item()
                error = self.network(history, math.sqrt(c) * x + math.sqrt(1 - c) * epsilon, i / 100) - epsilon
            else:
                error = self.mlp("flow", history.unsqueeze(0))[0] - x
            total = total + (error**2).sum() / len(x)
        return {"loss": total / BATCH}

    def update(self, batch: Batch, noise: Any) -> None:
        self.variant.tau = (self.n_updates + 1) ** -0.75  # the share of the newest weights
        super().update(batch, noise)


@pytest.mark.parametrize("cls", CLASSES)
def test_updates_are_the_equations(cls: type, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss, Adam's steps, and the average."""
    monkeypatch.setattr(networks, "SMALL", 0)  # so that the activation is the one of large batches
    variant = Variant(cls)
    model = variant.model()
    model.policy.double()
    reference = Reference(model, variant)
    for seed in range(4):
        batch, noise = variant.batch(seed)
        loss, metrics = model.loss(batch, noise)
        assert loss.item() == pytest.approx(reference.losses(batch, noise)["loss"].item(), rel=1e-7)
        assert list(metrics.values()) == [loss]
        model.update(batch, noise)
        reference.update(batch, noise)
    for name, parameter in model.policy.named_parameters():
        np.testing.assert_allclose(parameter.detach(), reference.parameters[name].detach(), rtol=1e-6, atol=1e-8)


def test_levels_are_equally_likely() -> None:
    model = ChunkDiffusion("FlowPolicy", box_env(1, 1), horizon_length=1, policy_kwargs={"net_arch": [4]}, seed=0)
    levels = model.draw_noise(200_000).levels
    counts = th.bincount(levels[:, 0].long())
    assert len(counts) == 100 and counts.min() > 1_800 and counts.max() < 2_200
    assert (levels == levels.floor()).all()


# Data, and plans.


def small(cls: type, env: Any = None, **kwargs: Any) -> Any:
    arguments = {"horizon_length": 6, "n_action_steps": 4, "policy_kwargs": {"net_arch": [16]}, "seed": 0, "device": "cpu"}
    return cls("FlowPolicy", env or box_env(3, 2), **{**arguments, **kwargs})


@pytest.mark.parametrize("cls", CLASSES)
def test_chunks_begin_with_the_action_that_follows(cls: type) -> None:
    """Not with the one before, as the curves of streaming do; past the end the last one is repeated."""
    env = AnySpaces(spaces.Box(-100, 100, (2,)), spaces.Box(-1, 1, (1,)))
    model = small(cls, env, dataset=trajectories(), horizon_length=3, n_action_steps=2)
    batch = model.draw_from(model.offline_buffer, th.tensor([0, 2, 7]))
    np.testing.assert_allclose(batch.actions, [[0, 0.01, 0.02], [0.02, 0.03, 0.04], [0.07, 0.08, 0.08]], atol=1e-6)
    assert batch.observations[:, 0].tolist() == [0, 0, 1, 2, 6, 7]


def counted(policy: Any) -> dict[str, list[int]]:
    """How many rows each evaluation of the network, and each encoding, has."""
    calls: dict[str, list[int]] = {"net": [], "encoder": []}
    policy.average.net.register_forward_hook(lambda module, inputs, output: calls["net"].append(len(output)))
    policy.average.features_extractor.register_forward_hook(
        lambda module, inputs, output: calls["encoder"].append(len(output))
    )
    return calls


EVALUATIONS = [
    (ChunkFlow, "average", 10),
    (ChunkDiffusion, "ddpm", 100),
    (ChunkDiffusion, "ddim", 10),
    (ChunkRegression, "average", 1),
]


@pytest.mark.parametrize(("cls", "sampler", "evaluations"), EVALUATIONS)
def test_plans_in_evaluate_policy(cls: type, sampler: str, evaluations: int) -> None:
    """Episodes of 7 steps, 3 actions of each plan: three plans an episode, in either environment, and no others."""
    policy = small(cls, Counter(7), n_action_steps=3).policy.with_sampler(sampler)
    calls = counted(policy)
    evaluate_policy(policy, DummyVecEnv([lambda: Counter(7)] * 2), n_eval_episodes=4, warn=False)
    assert calls["encoder"] == [2 * 2] * (2 * 3)  # two episodes, two frames each, both environments at once
    assert calls["net"] == [2] * (evaluations * 2 * 3)


@pytest.mark.parametrize("cls", CLASSES)
def test_one_environment_starts_over_alone(cls: type) -> None:
    """Also in the middle of a plan; the given state is not changed."""
    model = small(cls)
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
        assert same == [True, False, True], field
    assert np.array_equal(go_on[[0, 2]], reset[[0, 2]])
    assert with_reset.cursor.tolist() == [3, 1, 3]
    fresh, _ = model.predict(observations[2, 1], deterministic=True)
    np.testing.assert_allclose(reset[1], fresh, atol=1e-6)
    np.testing.assert_array_equal(with_reset.frames[1], observations[2, [1, 1]])
    np.testing.assert_array_equal(with_reset.frames[0], observations[1:3, 0])


@pytest.mark.parametrize(("cls", "sampler", "evaluations"), EVALUATIONS)
def test_plans_see_their_history(cls: type, sampler: str, evaluations: int) -> None:
    """Ten calls are two and a half plans, each made at once from the observations before it, by hand."""
    policy = small(cls).policy.with_sampler(sampler)
    with th.no_grad():
        for parameter in policy.average.parameters():
            parameter.add_(0.1 * th.randn(parameter.shape, generator=th.Generator().manual_seed(len(parameter))))
    observations = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)
    sent, state = [], None
    for i, observation in enumerate(observations):
        action, state = policy.predict(observation, state, np.array([i == 0]), deterministic=True)
        sent.append(action)
    planned = []
    for begin in (0, 4, 8):
        frames = th.as_tensor(observations[[max(begin - 1, 0), begin]])
        with th.no_grad():
            plan = policy.plan(policy.context(policy.average, frames), th.zeros(1, policy.noise_dim))
        planned.append(plan.view(6, 2).numpy()[:4])
    np.testing.assert_allclose(sent, np.concatenate(planned)[:10], atol=1e-5)
    assert len(np.unique(np.array(sent)[:, 0])) > 5


@pytest.mark.parametrize("cls", CLASSES)
def test_dictionaries_plan_as_their_parts(cls: type) -> None:
    parts = spaces.Dict({"a": spaces.Box(-9, 9, (1,)), "b": spaces.Box(-9, 9, (2,))})
    whole, split = small(cls), small(cls, AnySpaces(parts, spaces.Box(-1, 1, (2,))))
    shared = {key: value for key, value in whole.policy.state_dict().items() if not key.startswith("normalizer")}
    split.policy.load_state_dict({**split.policy.state_dict(), **shared})
    observations, states = np.random.default_rng(0).normal(size=(10, 2, 3)).astype(np.float32), [None, None]
    for i, rows in enumerate(observations):
        starts = np.array([i == 0, i in (0, 3)])
        one, states[0] = whole.predict(rows, states[0], starts, deterministic=True)
        two, states[1] = split.predict({"a": rows[:, :1], "b": rows[:, 1:]}, states[1], starts, deterministic=True)
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("cls", CLASSES)
def test_data_alone_is_enough(cls: type, tmp_path: Path) -> None:
    """A model without an environment learns, is saved, and acts as it did."""
    data = collect(pendulum, 40)
    del data["rewards"]
    model = cls("FlowPolicy", dataset=data, policy_kwargs={"net_arch": [8]}, batch_size=8).learn(3)
    model.save(tmp_path / "model")
    loaded, states = cls.load(tmp_path / "model", dataset=data), [None, None]
    for observation in data["observations"][:12]:
        one, states[0] = model.predict(observation, states[0], deterministic=True)
        two, states[1] = loaded.predict(observation, states[1], deterministic=True)
        np.testing.assert_array_equal(one, two)
    assert loaded.learn(4, reset_num_timesteps=False).n_offline_updates == 7
    with pytest.raises(TypeError, match="offline_steps"):  # it only imitates
        cls("FlowPolicy", dataset=data, offline_steps=5)


@pytest.mark.parametrize("cls", [ChunkFlow, ChunkDiffusion])
def test_the_network_with_residual_blocks(cls: type) -> None:
    """Every parameter has a gradient."""
    kwargs = {"net_arch": [8, 16], "encode_time_dim": 8, "modulated": True}
    model = small(cls, pendulum(), dataset=collect(pendulum), learning_rate=1e-3, policy_kwargs=kwargs, cosine=False)
    batch, noise = model.sample_batch(16), model.draw_noise(16)
    losses = [next(iter(model.update(batch, noise).values())).item() for _ in range(60)]
    assert losses[-1] < 0.9 * losses[0]
    assert all(parameter.grad.abs().max() > 0 for parameter in model.policy.flow.net.parameters())


# The comparison.

SWEEP = yaml.safe_load((Path(__file__).parents[1] / "results" / "streaming_flow" / "sweep.yml").read_text("utf-8"))
#: Sizes of observations and actions.
SIZES = {"gym_pusht/PushT-v0": (5, 2), "sb3_flow/TwoRoutes-v0": (2, 2), "cube-single-singletask-task2-v0": (28, 6)}


@pytest.mark.parametrize("task", SIZES)
def test_networks_of_the_comparison_are_equally_large(task: str) -> None:
    """By the parameters that see data: those that a gradient reaches."""
    counts = {}
    for name, entry in SWEEP["algorithms"].items():
        kwargs = entry["policy_kwargs"]
        for pattern, inner in entry.get("tasks", {}).items():
            kwargs = inner.get("policy_kwargs", kwargs) if fnmatch(task, pattern) else kwargs
        variant = {key: entry[key] for key in ("stochastic", "sigma_0", "sigma_1", "k") if key in entry}
        model = ALGORITHMS[name]("FlowPolicy", box_env(*SIZES[task]), policy_kwargs=kwargs, device="cpu", seed=0, **variant)
        draw, n_knots = Draw(0, th.float32), 17 if name.startswith("streaming") else 16
        batch = draw.batch(1)._replace(
            observations=draw.normal(2 * BATCH, SIZES[task][0]), actions=draw.normal(BATCH, n_knots * SIZES[task][1])
        )
        model.loss(batch, model.draw_noise(BATCH))[0].backward()
        counts[name] = sum(parameter.grad.count_nonzero().item() for parameter in model.policy.flow.parameters())
    assert len(counts) == 5 and max(counts.values()) < 1.02 * min(counts.values()), counts


def test_they_are_evaluated_by_samples() -> None:
    """As in the papers; streaming flow without a latent is evaluated by deterministic actions."""
    sampled = {name for name in SWEEP["algorithms"] if acts_by_sampling(name)}
    assert sampled == set(SWEEP["algorithms"]) - {"streaming_flow"}


class Block(gym.Env):
    """The goal is covered, step by step, as listed."""

    observation_space = action_space = spaces.Box(-1, 1, (1,))
    coverages = (0.1, 0.6, 0.3)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self.time = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: np.ndarray) -> Any:
        coverage = self.coverages[self.time]
        self.time += 1
        return np.zeros(1, np.float32), coverage / 0.95, False, self.time == len(self.coverages), {"coverage": coverage}


def test_measures_are_written_down(tmp_path: Path) -> None:
    """The greatest reward and the last coverage of each episode, of every evaluation, beside what there is anyway."""
    env = DummyVecEnv([lambda: Monitor(PushTMeasures(Block()))] * 2)
    plain = callbacks.EvalCallback(env, n_eval_episodes=3, eval_freq=5, log_path=str(tmp_path), verbose=0)
    model = small(ChunkRegression, pendulum(), dataset=collect(pendulum))
    env.observation_space, env.action_space = model.observation_space, model.action_space
    model.predict = lambda *args, **kwargs: (np.zeros((2, 1), np.float32), None)
    model.learn(10, callback=TrainingClock([EvalCallback.like(plain)]))
    with np.load(tmp_path / "evaluations.npz") as arrays:
        assert set(arrays) == {"timesteps", "results", "ep_lengths", "seconds", "measure_score", "measure_coverage"}
        np.testing.assert_allclose(arrays["measure_score"], np.full((2, 3), 0.6 / 0.95))
        np.testing.assert_allclose(arrays["measure_coverage"], np.full((2, 3), 0.3))


def test_measures_of_the_real_push_t() -> None:
    pytest.importorskip("gym_pusht")
    env = PushTMeasures(make_env("gym_pusht/PushT-v0"))
    observation, _ = env.reset(seed=3)
    rewards = []
    for target in np.linspace(observation[:2], observation[2:4], 25):
        _, reward, _, _, info = env.step(target)
        rewards.append(reward)
        assert info["measures"] == {"score": pytest.approx(max(rewards)), "coverage": pytest.approx(info["coverage"])}
    assert max(rewards) > min(rewards), "the block was pushed"
    env.reset(seed=3)
    assert env.step(observation[:2])[4]["measures"]["score"] == pytest.approx(rewards[0], abs=1e-6)


@pytest.mark.parametrize(
    ("cls", "arguments", "message"),
    [
        (ChunkFlow, {"n_action_steps": 5}, "`n_action_steps` is 5.*`horizon_length`, 4"),
        (ChunkFlow, {"policy_kwargs": {"encode_time_dim": 7}}, "`encode_time_dim` is 7"),
        (ChunkFlow, {"flow_steps": 0}, "`flow_steps` is 0"),
        (ChunkDiffusion, {"diffusion_steps": 0}, "`diffusion_steps` is 0"),
        (ChunkDiffusion, {"ddim_steps": 0}, "`ddim_steps` is 0"),
        (ChunkDiffusion, {"ddim_steps": 9, "diffusion_steps": 8}, "`ddim_steps` is 9.*`diffusion_steps`, 8"),
        (ChunkRegression, {"policy_kwargs": {"best_of_n": 2}}, "`best_of_n` in `policy_kwargs` is 2"),
    ],
    ids=str,
)
def test_bad_arguments(cls: type, arguments: dict[str, Any], message: str) -> None:
    """The constructor raises an error that names the argument and its value."""
    small: dict[str, Any] = {"policy_kwargs": {"net_arch": [8]}, "device": "cpu", "horizon_length": 4}
    with pytest.raises(ValueError, match=message):
        cls("FlowPolicy", pendulum(), **{**small, **arguments})
