"""
IFQL against a second implementation: the equations of its class, written out slowly in float64, and closed forms.

``Reference`` shares no code with the package, see ``transcription.py``.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch as th
from conformance.environments import AnySpaces
from gymnasium import spaces
from shipped_configs import FILES, TASKS
from transcription import BATCH, OBS_DIM, Draw, Transcription, box_env, parameters_of, shake

from sb3_flow import IFQL
from sb3_flow.baselines.ifql import IFQLNoise, IFQLPolicy
from sb3_flow.common.type_aliases import Batch


def make_model(obs_dim: int = OBS_DIM, action_dim: int = 1, net_arch: tuple[int, ...] = (24, 16), **kwargs: Any) -> IFQL:
    env = box_env(obs_dim, action_dim)
    policy_kwargs = {"net_arch": net_arch, **kwargs.pop("policy_kwargs", {})}
    return IFQL("FlowPolicy", env, policy_kwargs=policy_kwargs, device="cpu", **{"seed": 0, **kwargs})


# The second implementation.


@dataclass
class Variant:
    action_dim: int = 3
    expectile: float = 0.9
    num_samples: int = 5
    flow_steps: int = 10
    n_critics: int = 2
    n_steps: int = 1
    horizon_length: int = 1
    gamma: float = 0.99
    tau: float = 0.005
    learning_rate: float = 3e-4

    @property
    def dim(self) -> int:
        return self.action_dim * self.horizon_length

    def model(self) -> IFQL:
        """A model whose parameters are all random, targets as well, and whose actions leave the box now and then."""
        model = make_model(
            action_dim=self.action_dim,
            expectile=self.expectile,
            num_samples=self.num_samples,
            flow_steps=self.flow_steps,
            n_steps=self.n_steps,
            horizon_length=self.horizon_length,
            gamma=self.gamma,
            tau=self.tau,
            learning_rate=self.learning_rate,
            policy_kwargs={"n_critics": self.n_critics},
        )
        shake(model)
        return model


VARIANTS = {
    "default": Variant(),
    "one action": Variant(action_dim=1, expectile=0.7),
    "three critics": Variant(n_critics=3),
    "low expectile": Variant(expectile=0.2, action_dim=2, n_critics=1),
    "n-step": Variant(n_steps=3, action_dim=2, gamma=0.9, flow_steps=4),
    "chunks": Variant(horizon_length=3, action_dim=2, gamma=0.9),
    "chunks, fast": Variant(horizon_length=2, tau=0.3, learning_rate=0.02, flow_steps=1),
}


class Reference(Transcription):
    """The docstring of IFQL, literally."""

    owners: ClassVar[dict[str, str]] = {"value": "value_loss", "critic": "critic_loss", "bc_flow": "bc_flow_loss"}
    variant: Variant

    def v(self, s: th.Tensor) -> th.Tensor:
        return self.q("value", 0, s, s[:, :0])

    def lowest(self, network: str, s: th.Tensor, a: th.Tensor) -> th.Tensor:
        """The lowest of the critics, row by row."""
        qs = [self.q(network, k, s, a).tolist() for k in range(self.variant.n_critics)]
        return th.tensor([min(values) for values in zip(*qs, strict=True)], dtype=th.float64)

    def flow(self, s: th.Tensor, z: th.Tensor) -> th.Tensor:
        end = self.euler(lambda x, t: self.mlp("bc_flow", s, x, t), z, self.variant.flow_steps)
        return th.clip(end, -1, 1)

    def value_loss(self, batch: Batch) -> th.Tensor:
        q, v = self.lowest("critic_target", batch.observations, batch.actions), self.v(batch.observations)
        total = th.zeros((), dtype=th.float64)
        for b in range(BATCH):
            weight = self.variant.expectile if q[b].item() >= v[b].item() else 1 - self.variant.expectile
            total = total + batch.valids[b] * weight * (q[b] - v[b]) ** 2
        return total / BATCH

    def critic_loss(self, batch: Batch) -> th.Tensor:
        next_v = self.v(batch.next_observations).detach()
        total = th.zeros((), dtype=th.float64)
        for k in range(self.variant.n_critics):
            q = self.q("critic", k, batch.observations, batch.actions)
            for b in range(BATCH):
                target = batch.rewards[b] + batch.discounts[b] * batch.masks[b] * next_v[b]
                total = total + batch.valids[b] * (q[b] - target) ** 2
        return total / BATCH

    def bc_flow_loss(self, batch: Batch, noise: IFQLNoise) -> th.Tensor:
        x_t = (1 - noise.t) * noise.x0 + noise.t * batch.actions
        error = self.mlp("bc_flow", batch.observations, x_t, noise.t) - (batch.actions - noise.x0)
        return (batch.valids[:, None] * error**2).sum() / (BATCH * self.variant.dim)

    def losses(self, batch: Batch, noise: IFQLNoise) -> dict[str, th.Tensor]:
        value_loss, critic_loss, bc_flow_loss = (
            self.value_loss(batch),
            self.critic_loss(batch),
            self.bc_flow_loss(batch, noise),
        )
        total = value_loss + critic_loss + bc_flow_loss
        return {"value_loss": value_loss, "critic_loss": critic_loss, "bc_flow_loss": bc_flow_loss, "loss": total}


def random_batch(variant: Variant, seed: int, dtype: th.dtype = th.float64) -> tuple[Batch, IFQLNoise]:
    """A batch, in which some chunks are invalid, and the noise of an update."""
    draw, dim = Draw(seed, dtype), variant.dim
    batch = draw.batch(dim, variant.gamma, variant.n_steps, valid=0.6 if variant.horizon_length > 1 else 1.0)
    return batch, IFQLNoise(x0=draw.normal(BATCH, dim), t=draw.uniform(BATCH, 1))


def model_losses(model: IFQL, batch: Batch, noise: IFQLNoise) -> dict[str, th.Tensor]:
    return {
        "value_loss": model.value_loss(batch)[0],
        "critic_loss": model.critic_loss(batch)[0],
        "bc_flow_loss": model.bc_flow_loss(batch, noise)[0],
        "loss": model.loss(batch, noise)[0],
    }


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_losses_and_gradients(variant: Variant) -> None:
    """Each loss, and its gradient to every parameter, in float64."""
    model = variant.model()
    model.policy.double()
    reference = Reference(model, variant)
    batch, noise = random_batch(variant, seed=0)
    expected, found = reference.losses(batch, noise), model_losses(model, batch, noise)
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(value.item(), rel=1e-12, abs=1e-12), name

    # The batch must show what the weights and the masks do.
    below = (reference.lowest("critic_target", batch.observations, batch.actions) < reference.v(batch.observations)).double()
    assert 0 < below.mean().item() < 1
    assert (batch.valids.mean().item() < 1) == (variant.horizon_length > 1)

    found["loss"].backward()
    reference.assert_gradients(model, expected)


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_parameters_after_updates(variant: Variant) -> None:
    """All parameters after three updates, those of the target critics too, in float64."""
    model = variant.model()
    model.policy.double()
    reference = Reference(model, variant)
    start = parameters_of(model)
    for seed in range(3):
        batch, noise = random_batch(variant, seed)
        expected = reference.losses(batch, noise)
        metrics = model.update(batch, noise)
        reference.update(batch, noise)
        for name in ("value_loss", "critic_loss", "bc_flow_loss"):
            assert metrics[name].item() == pytest.approx(expected[name].item(), rel=1e-9)
    reference.assert_parameters(model, start)


TERMS: dict[str, tuple[str, Callable[[IFQL, Batch, IFQLNoise], th.Tensor]]] = {
    "L_V": ("value", lambda model, batch, noise: model.value_loss(batch)[0]),
    "L_Q": ("critic", lambda model, batch, noise: model.critic_loss(batch)[0]),
    "L_BC": ("bc_flow", lambda model, batch, noise: model.bc_flow_loss(batch, noise)[0]),
}


@pytest.mark.parametrize("term", TERMS)
def test_gradient_routing_from_images(term: str) -> None:
    """Each term has a gradient for one network, with its encoder, and never for a target."""
    batch, noise = random_batch(Variant(action_dim=2), 0, th.float32)
    env = AnySpaces(spaces.Box(0, 255, (1, 8, 8), np.uint8), spaces.Box(-1.0, 1.0, (2,)))
    policy_kwargs = {"net_arch": [8], "features_extractor_kwargs": {"cnn_output_dim": 6}}
    model = IFQL("FlowPolicy", env, policy_kwargs=policy_kwargs, device="cpu", seed=0)
    images = th.randint(0, 256, (BATCH, 1, 8, 8), generator=th.Generator().manual_seed(0), dtype=th.uint8)
    owner, loss = TERMS[term]
    loss(model, batch._replace(observations=images, next_observations=images.flip(2)), noise).backward()
    for name, parameter in model.policy.named_parameters():
        if name.split(".")[0] == owner:
            assert parameter.grad is not None and parameter.grad.abs().max().item() > 0, name
        else:
            assert parameter.grad is None or not parameter.grad.any(), name
    networks = {name.split(".")[0] for name, _ in model.policy.named_parameters()}
    assert networks == {"bc_flow", "value", "critic", "critic_target"}


# Closed forms of the losses.


def set_outputs(model: IFQL, **outputs: list[float]) -> None:
    """Make networks constant: ``critic=[0.0, 1.0]``."""
    with th.no_grad():
        for name, values in outputs.items():
            net = getattr(model.policy, name).net
            net.weights[-1].zero_()
            net.biases[-1].copy_(th.tensor(values).reshape(-1, 1, 1))


@pytest.mark.parametrize(("mask", "discount", "target"), [(1, 0.99, 1.97), (0, 0.99, -1.0), (1, 0.5, 0.5)])
def test_arithmetic_of_targets(mask: float, discount: float, target: float) -> None:
    """r = -1, V(s') = 3. With critics that say {0, 1} the loss is y^2 + (1 - y)^2."""
    model = make_model()
    set_outputs(model, value=[3.0], critic=[0.0, 1.0], critic_target=[100.0, 100.0])
    batch, _ = random_batch(Variant(action_dim=1), 0, th.float32)
    ones = th.ones(BATCH)
    batch = batch._replace(rewards=-ones, masks=mask * ones, discounts=discount * ones)
    assert model.critic_loss(batch)[0].item() == pytest.approx(target**2 + (1 - target) ** 2, rel=1e-5)


@pytest.mark.parametrize(("value", "loss"), [(1.0, 0.9 * 1), (2.0, 0.0), (5.0, 0.1 * 9)])
def test_arithmetic_of_the_value(value: float, loss: float) -> None:
    """Target critics that say {2, 4} are worth 2. Values below it weigh 0.9, values above it 0.1."""
    model = make_model(expectile=0.9)
    set_outputs(model, value=[value], critic=[-50.0, -50.0], critic_target=[2.0, 4.0])
    batch, _ = random_batch(Variant(action_dim=1), 0, th.float32)
    assert model.value_loss(batch)[0].item() == pytest.approx(loss, rel=1e-5, abs=1e-9)


def uniform_expectile(expectile: float) -> float:
    """That of the uniform distribution on [-1, 1]: the root of ``e (1 - x)^2 = (1 - e) (1 + x)^2``; 1/2 for e = 0.9."""
    above, below = math.sqrt(expectile), math.sqrt(1 - expectile)
    return (above - below) / (above + below)


@pytest.mark.parametrize("expectile", [0.5, 0.7, 0.9, 0.98])
def test_the_value_is_an_expectile(monkeypatch: pytest.MonkeyPatch, expectile: float) -> None:
    """Where Q' is uniform on [-1, 1], the loss is least at the expectile of that distribution, and falls towards it."""
    model, n = make_model(expectile=expectile), 4_000
    q = (th.arange(n, dtype=th.float64) + 0.5) / n * 2 - 1
    monkeypatch.setattr(model.policy, "q_values", lambda network, observations, actions: th.stack([q, q + 1]))
    ones = th.ones(n, dtype=th.float64)
    batch = Batch(ones, ones, ones, ones, ones, ones, ones)

    def slope(at: float) -> float:
        value = th.tensor(at, dtype=th.float64, requires_grad=True)
        monkeypatch.setattr(model.policy, "state_values", lambda observations: value.expand(n))
        model.value_loss(batch)[0].backward()
        assert value.grad is not None
        return value.grad.item()

    expected = uniform_expectile(expectile)
    assert uniform_expectile(0.9) == pytest.approx(0.5)
    assert slope(expected) == pytest.approx(0.0, abs=1e-6)
    assert slope(expected - 0.1) < -0.01 and slope(expected + 0.1) > 0.01


# Acting.


@pytest.mark.parametrize("variant", [Variant(n_critics=3), Variant(horizon_length=2, num_samples=7)], ids=["one", "chunks"])
def test_the_best_of_n(variant: Variant) -> None:
    """Of the clipped actions of the flow, one for each noise, the one whose lowest critic is highest."""
    model = variant.model()
    model.policy.double()
    reference, n, dim = Reference(model, variant), variant.num_samples, variant.dim
    obs, noise = Draw(3).normal(40, OBS_DIM), Draw(4).normal(40, n * dim)
    assert (model.policy.sampler, model.policy.noise_dim) == ("best_of_n", n * dim)
    with th.no_grad():
        found = model.policy.act(obs, noise)
        candidates = [reference.flow(obs, noise[:, i * dim : (i + 1) * dim]) for i in range(n)]
        scores = {
            "lowest": [reference.lowest("critic", obs, actions) for actions in candidates],
            "mean": [sum(reference.q("critic", k, obs, a) for k in range(variant.n_critics)) for a in candidates],
            "first": [reference.q("critic", 0, obs, actions) for actions in candidates],
            "target": [reference.lowest("critic_target", obs, actions) for actions in candidates],
        }
    best = {name: [max(range(n), key=lambda i, r=r, s=s: s[i][r].item()) for r in range(40)] for name, s in scores.items()}  # type: ignore[misc]
    expected = th.stack([candidates[i][row] for row, i in enumerate(best["lowest"])])
    th.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    for name in ("mean", "first", "target"):
        assert best[name] != best["lowest"]  # other ways to choose would have chosen others


def test_best_of_n_of_the_base_class_chooses_alike() -> None:
    """``with_sampler("bc_flow", best_of_n=n)`` scores by the lowest critic, too."""
    variant = Variant(n_critics=3)
    policy = variant.model().policy
    obs, noise = th.randn(40, OBS_DIM), th.randn(40, 5, variant.dim)
    with th.no_grad():
        found = policy.with_sampler("bc_flow", best_of_n=5).act_best(obs, noise)
        th.testing.assert_close(found, policy.act(obs, noise.flatten(start_dim=1)))


def test_best_of_n_of_an_unskilled_flow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A field of zero passes noise on, and Q(a) = a: the best is the maximum, below 0 with probability 2^-n."""
    model = make_model(num_samples=4)
    with th.no_grad():
        model.policy.bc_flow.net.layers[-1].weight.zero_()
    q_values = lambda network, observations, actions, copies: th.stack([actions[:, 0], actions[:, 0] + 1])  # noqa: E731
    monkeypatch.setattr(model.policy, "q_values", q_values)
    obs = th.zeros(20_000, OBS_DIM)
    noise = th.randn(20_000, 4, generator=th.Generator().manual_seed(0))
    actions = model.policy.act(obs, noise)
    th.testing.assert_close(actions[:, 0], noise.amax(dim=1).clamp(-1, 1))
    assert (actions < 0).double().mean().item() == pytest.approx(1 / 16, abs=0.01)


@pytest.mark.parametrize("best_of_n", [1, 3])
def test_deterministic_actions(best_of_n: int) -> None:
    """The same noises for every observation, call and process, the first of which is zero, and no two are alike."""
    variant = Variant(action_dim=2)
    model = variant.model()
    model.policy.best_of_n = best_of_n
    noise = model.policy._noise(40, deterministic=True).view(40, -1, 2)
    assert noise.shape[1] == best_of_n * 5 and noise[0, 0].tolist() == [0, 0]
    assert th.equal(noise, noise[:1].expand(40, -1, -1)) and len(noise[0].unique(dim=0)) == best_of_n * 5
    obs = np.random.default_rng(0).normal(size=(40, OBS_DIM)).astype(np.float32)
    found, _ = model.predict(obs, deterministic=True)
    model.predict(obs)  # draws from other streams
    other = variant.model()
    other.policy.best_of_n = best_of_n
    np.testing.assert_array_equal(other.predict(obs, deterministic=True)[0], found)
    with th.no_grad():
        candidates = [model.policy.act_bc_flow(th.from_numpy(obs), noise[:, i]) for i in range(noise.shape[1])]
    distances = np.stack([np.abs(found - actions.numpy()).max(axis=1) for actions in candidates])
    assert distances.min(axis=0).max() < 1e-5
    assert len(set(distances.argmin(axis=0))) > 1  # not always the same noise is best


def test_the_clone_needs_the_noise_of_one_action() -> None:
    variant = Variant(action_dim=2)
    model = variant.model()
    clone = model.policy.with_sampler("bc_flow")
    assert (clone.noise_dim, model.policy.noise_dim) == (2, 10)
    obs, noise = Draw(0).normal(30, OBS_DIM), Draw(1).normal(30, 2)
    with th.no_grad():
        found = clone.act(obs.float(), noise.float()).double()
    th.testing.assert_close(found, Reference(model, variant).flow(obs, noise).detach(), rtol=0, atol=1e-5)


def test_the_number_of_samples_is_saved(tmp_path: Path) -> None:
    model = make_model(num_samples=3, flow_steps=2, expectile=0.8)
    model.save(tmp_path / "model")
    loaded = IFQL.load(tmp_path / "model", device="cpu")
    assert (loaded.policy.num_samples, loaded.policy.flow_steps, loaded.expectile) == (3, 2, 0.8)
    more = IFQL.load(tmp_path / "model", device="cpu", num_samples=9)  # acting only: the networks stay
    assert more.policy.num_samples == 9
    assert all(th.equal(a, b) for a, b in zip(more.policy.parameters(), model.policy.parameters(), strict=True))


def test_noise() -> None:
    """A standard normal of the size of an action and a uniform time for each sample; a seed repeats them."""
    model, n = make_model(action_dim=2, horizon_length=2), 20_000
    noise = model.draw_noise(n)
    assert noise.x0.shape == (n, 4) and noise.t.shape == (n, 1)
    assert noise.t.min().item() >= 0 and noise.t.max().item() <= 1
    assert noise.t.mean().item() == pytest.approx(0.5, abs=5 / math.sqrt(12 * n))
    assert noise.x0.mean(dim=0).abs().max().item() < 5 / math.sqrt(n)
    assert (noise.x0.std(dim=0) - 1).abs().max().item() < 5 / math.sqrt(2 * n)
    columns = th.cat([noise.x0, noise.t], dim=1)
    assert (th.corrcoef(columns.T) - th.eye(5)).abs().max().item() < 5 / math.sqrt(n)
    again = make_model(action_dim=2, horizon_length=2).draw_noise(n)
    assert all(th.equal(*pair) for pair in zip(again, noise, strict=True))


# Arguments.


def test_published_defaults() -> None:
    model = IFQL("FlowPolicy", box_env(3, 2), device="cpu", buffer_size=1)
    expected = dict(learning_rate=3e-4, batch_size=256, tau=0.005, gamma=0.99, n_steps=1, horizon_length=1)
    expected |= dict(expectile=0.9, num_samples=32, flow_steps=10, normalize_observations=False)
    assert {name: getattr(model, name) for name in expected} == expected
    policy = model.policy
    assert isinstance(policy, IFQLPolicy) and (policy.flow_steps, policy.num_samples, policy.best_of_n) == (10, 32, 1)
    assert list(policy.samplers) == ["best_of_n", "bc_flow"]
    assert [layer.out_features for layer in policy.bc_flow.net.layers] == [512, 512, 512, 512, 2]
    assert [tuple(weight.shape) for weight in policy.critic.net.weights] == [(2, 5, 512), *[(2, 512, 512)] * 3, (2, 512, 1)]
    assert [tuple(weight.shape) for weight in policy.value.net.weights] == [(1, 3, 512), *[(1, 512, 512)] * 3, (1, 512, 1)]
    assert policy.critic.net.layer_norm and policy.value.net.layer_norm
    assert type(policy.optimizer) is th.optim.Adam and policy.optimizers == [policy.optimizer]
    (group,) = policy.optimizer.param_groups
    assert (group["lr"], group["betas"], group["eps"], group["weight_decay"]) == (3e-4, (0.9, 0.999), 1e-8, 0)
    held = {id(parameter) for parameter in group["params"]}
    trained = [p for network in (policy.critic, policy.value, policy.bc_flow) for p in network.parameters()]
    assert held == {id(parameter) for parameter in trained}


#: Number of samples and gamma, by the sources that the file names.
PUBLISHED = {
    **dict.fromkeys(("cube-single-play", "cube-double-play", "scene-play", "puzzle-3x3-play", "puzzle-4x4-play"), (32, 0.99)),
    **dict.fromkeys(("humanoidmaze-medium-navigate", "humanoidmaze-large-navigate", "antmaze-giant-navigate"), (32, 0.995)),
    "antmaze-large-navigate": (32, 0.99),
    "antsoccer-arena-navigate": (64, 0.995),
}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("dataset", PUBLISHED)
def test_published_settings(dataset: str, task: str) -> None:
    entry = FILES["ifql"][f"{dataset.rsplit('-', 1)[0]}-singletask{task}-v0"]
    samples, gamma = PUBLISHED[dataset]
    expected = {"policy": "FlowPolicy", "n_timesteps": 1e6, "num_samples": samples, "gamma": gamma}
    assert entry == {**expected, "dataset": f"ogbench:{dataset}-singletask{task}-v0"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"expectile": 0.0}, "`expectile` is 0.0"),
        ({"expectile": 1.0}, "`expectile` is 1.0"),
        ({"expectile": float("nan")}, "`expectile` is nan"),
        ({"num_samples": 0}, "`num_samples` is 0"),
        ({"flow_steps": 0}, "`flow_steps` is 0"),
    ],
    ids=str,
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    """The constructor raises an error that names the argument and its value."""
    with pytest.raises(ValueError, match=message):
        make_model(**arguments)


def test_a_sampler_that_does_not_exist() -> None:
    with pytest.raises(ValueError, match=r"'flow'.*best_of_n, bc_flow"):
        make_model().policy.with_sampler("flow")


# Short trainings whose result is known.


@pytest.mark.nightly
@pytest.mark.parametrize("n_steps", [1, 3])
def test_values_of_a_chain(n_steps: int) -> None:
    """
    States k = 0 .. 5 steps before success, reward -1 until then, 0 at success, where the task ends. Actions do not matter, so
    that V = Q = -(1 - gamma^k) / (1 - gamma), whatever the expectile.
    """
    gamma, length, n = 0.9, 5, 100
    k = np.tile(np.arange(length, -1, -1), n)
    identity = np.eye(length + 2, dtype=np.float32)
    data = dict(
        observations=identity[k],
        next_observations=identity[k - 1],
        actions=np.random.default_rng(0).uniform(-1, 1, (len(k), 1)),
        rewards=np.where(k > 0, -1.0, 0.0),
        masks=np.where(k > 0, 1.0, 0.0),
        terminals=np.where(k > 0, 0.0, 1.0),
    )
    small: dict[str, Any] = {"net_arch": (32, 32), "learning_rate": 3e-3, "tau": 0.1, "batch_size": 128}
    model = make_model(obs_dim=length + 2, dataset=data, gamma=gamma, n_steps=n_steps, flow_steps=1, **small)
    model.learn(600)
    policy, actions = model.policy, th.linspace(-1, 1, 5)[:, None]
    with th.no_grad():
        for steps in range(length + 1):
            expected = -(1 - gamma**steps) / (1 - gamma)
            state = th.from_numpy(identity[[steps] * 5])
            th.testing.assert_close(
                policy.q_values(policy.critic, state, actions), th.full((2, 5), expected), rtol=0, atol=0.3
            )
            th.testing.assert_close(policy.state_values(state), th.full((5,), expected), rtol=0, atol=0.3)


def bandit(actions: np.ndarray, **kwargs: Any) -> IFQL:
    """Trained on a bandit whose reward is its action."""
    ones = np.ones((len(actions), 1))
    data = dict(observations=ones, actions=actions, rewards=actions[:, 0], terminations=ones[:, 0])
    small: dict[str, Any] = {"net_arch": (32, 32), "learning_rate": 3e-3, "tau": 0.1, "batch_size": 128}
    return make_model(obs_dim=1, dataset=data, **small, **kwargs)


@pytest.mark.slow
@pytest.mark.parametrize("expectile", [pytest.param(0.5, marks=pytest.mark.nightly), 0.9])
def test_the_value_of_a_bandit(expectile: float) -> None:
    """Actions and rewards uniform on [-1, 1]: Q(a) = a, and V is the expectile, 0 or 1/2."""
    model = bandit(np.random.default_rng(0).uniform(-1, 1, (4000, 1)), expectile=expectile, flow_steps=1)
    model.learn(500)
    actions = th.linspace(-0.9, 0.9, 7)[:, None]
    with th.no_grad():
        qs = model.policy.q_values(model.policy.critic, th.ones(7, 1), actions)
        value = model.policy.state_values(th.ones(1, 1)).item()
    th.testing.assert_close(qs, actions[:, 0].expand(2, 7), rtol=0, atol=0.15)
    assert value == pytest.approx(uniform_expectile(expectile), abs=0.1)


@pytest.mark.nightly
def test_the_better_mode_of_a_bandit() -> None:
    """
    Data around -0.5, and one action in four around 0.5, which is better. The clone keeps that share of 1/4. Of n samples, at
    least one is there with probability 1 - (3/4)^n, which is 0.9 for n = 8, and that one is taken.
    """
    rng = np.random.default_rng(0)
    good = rng.random((4000, 1)) < 0.25
    model = bandit(np.where(good, 0.5, -0.5) + 0.05 * rng.normal(size=(4000, 1)), num_samples=8)
    model.learn(700)
    obs = np.ones((1000, 1), dtype=np.float32)
    clone = model.policy.with_sampler("bc_flow")
    th.manual_seed(0)
    cloned, best = (policy.predict(obs)[0] for policy in (clone, model.policy))
    assert (cloned > 0).mean() == pytest.approx(0.25, abs=0.08)
    assert (best > 0).mean() == pytest.approx(1 - (1 - (cloned > 0).mean()) ** 8, abs=0.05)
    assert (best > 0).mean() > 0.75
