"""
FQL against a second implementation: the equations of the paper, written out slowly in float64, and closed forms.

``Reference`` shares no code with the package, see ``transcription.py``. Section numbers are those of the method's
specification, T1 .. T9 its tests.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch as th
from conformance.environments import AnySpaces
from gymnasium import spaces
from transcription import BATCH, OBS_DIM, SEEDS, Draw, Transcription, assert_single_precision, box_env, parameters_of, shake

from sb3_flow import FQL
from sb3_flow.common import networks
from sb3_flow.common.type_aliases import Batch
from sb3_flow.fql import FQLPolicy
from sb3_flow.fql.fql import FQLNoise

NETWORKS = ("bc_flow", "actor", "critic", "critic_target")


@pytest.fixture(autouse=True)
def size_of_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors as small as here would take PyTorch's GELU; compare the fast one."""
    monkeypatch.setattr(networks, "SMALL", 0)


def make_model(obs_dim: int = OBS_DIM, action_dim: int = 1, net_arch: tuple[int, ...] = (24, 16), **kwargs: Any) -> FQL:
    env = box_env(obs_dim, action_dim)
    policy_kwargs = {"net_arch": net_arch, **kwargs.pop("policy_kwargs", {})}
    return FQL("FlowPolicy", env, policy_kwargs=policy_kwargs, device="cpu", **{"seed": 0, **kwargs})


# The second implementation.


@dataclass
class Variant:
    action_dim: int = 3
    alpha: float = 2.5
    flow_steps: int = 10
    q_agg: str = "mean"
    normalize_q_loss: bool = False
    layer_norm: bool = True
    n_critics: int = 2
    n_steps: int = 1
    valid: float = 1.0
    gamma: float = 0.99
    tau: float = 0.005
    learning_rate: float = 3e-4

    def model(self) -> FQL:
        """A model whose parameters are all random, targets as well, and whose actions leave the box now and then."""
        model = make_model(
            action_dim=self.action_dim,
            alpha=self.alpha,
            flow_steps=self.flow_steps,
            q_agg=self.q_agg,
            normalize_q_loss=self.normalize_q_loss,
            n_steps=self.n_steps,
            gamma=self.gamma,
            tau=self.tau,
            learning_rate=self.learning_rate,
            policy_kwargs={"critic_layer_norm": self.layer_norm, "n_critics": self.n_critics},
        )
        shake(model)
        return model


VARIANTS = {
    "default": Variant(),
    "one action": Variant(action_dim=1),
    "min": Variant(q_agg="min", n_critics=3),
    "normalized": Variant(normalize_q_loss=True, alpha=0.3),
    "n-step": Variant(n_steps=3, action_dim=2, gamma=0.9, flow_steps=4),
    "no layer norm": Variant(layer_norm=False, q_agg="min", normalize_q_loss=True, flow_steps=1),
    "chunks": Variant(valid=0.6, action_dim=6, gamma=0.9, n_critics=3),
    "fast": Variant(tau=0.3, learning_rate=0.02, action_dim=2),
}


class Reference(Transcription):
    """Sections 3 to 5, literally."""

    owners: ClassVar[dict[str, str]] = {"critic": "critic_loss", "bc_flow": "bc_flow_loss", "actor": "actor_loss"}
    variant: Variant

    def one_step(self, s: th.Tensor, z: th.Tensor) -> th.Tensor:
        return self.mlp("actor", s, z)

    def flow(self, s: th.Tensor, z: th.Tensor) -> th.Tensor:
        end = self.euler(lambda x, t: self.mlp("bc_flow", s, x, t), z, self.variant.flow_steps)
        return th.clip(end, -1, 1)

    def critic_loss(self, batch: Batch, noise: FQLNoise) -> th.Tensor:
        """4.1; a chunk that reaches past the end of its trajectory counts nothing (QAM 4.1)."""
        next_actions = th.clip(self.one_step(batch.next_observations, noise.next_noise), -1, 1)
        total = th.zeros((), dtype=th.float64)
        for b in range(BATCH):
            s, next_s = batch.observations[b : b + 1], batch.next_observations[b : b + 1]
            next_qs = [self.q("critic_target", k, next_s, next_actions[b : b + 1]) for k in range(self.variant.n_critics)]
            next_q = min(next_qs) if self.variant.q_agg == "min" else sum(next_qs) / len(next_qs)
            y = (batch.rewards[b] + batch.discounts[b] * batch.masks[b] * next_q).detach()
            for k in range(self.variant.n_critics):
                error = (self.q("critic", k, s, batch.actions[b : b + 1]) - y).squeeze()
                total = total + batch.valids[b] * error**2
        return total / (BATCH * self.variant.n_critics)

    def bc_flow_loss(self, batch: Batch, noise: FQLNoise) -> th.Tensor:
        """4.2; with the same chunks left out."""
        x_t = (1 - noise.t) * noise.x0 + noise.t * batch.actions
        error = self.mlp("bc_flow", batch.observations, x_t, noise.t) - (batch.actions - noise.x0)
        return (batch.valids[:, None] * error**2).sum() / (BATCH * self.variant.action_dim)

    def distill_loss(self, batch: Batch, noise: FQLNoise) -> th.Tensor:
        """4.3"""
        flow_actions = self.flow(batch.observations, noise.z).detach()
        error = self.one_step(batch.observations, noise.z) - flow_actions
        return (error**2).sum() / (BATCH * self.variant.action_dim)

    def q_loss(self, batch: Batch, noise: FQLNoise) -> th.Tensor:
        """4.4; the critic's own gradient is dropped in ``gradients``."""
        actions = th.clip(self.one_step(batch.observations, noise.z), -1, 1)
        qs = [self.q("critic", k, batch.observations, actions) for k in range(self.variant.n_critics)]
        q = sum(qs) / len(qs)
        scale = 1 / q.abs().mean().detach() if self.variant.normalize_q_loss else 1.0
        return -q.mean() * scale

    def losses(self, batch: Batch, noise: FQLNoise) -> dict[str, th.Tensor]:
        distill_loss, q_loss = self.distill_loss(batch, noise), self.q_loss(batch, noise)
        critic_loss, bc_flow_loss = self.critic_loss(batch, noise), self.bc_flow_loss(batch, noise)
        actor_loss = self.variant.alpha * distill_loss + q_loss
        return {
            "critic_loss": critic_loss,
            "bc_flow_loss": bc_flow_loss,
            "distill_loss": distill_loss,
            "q_loss": q_loss,
            "actor_loss": actor_loss,
            "loss": critic_loss + bc_flow_loss + actor_loss,
        }


def random_batch(variant: Variant, seed: int, dtype: th.dtype = th.float64) -> tuple[Batch, FQLNoise]:
    """A batch, and the noise of an update."""
    draw, dim = Draw(seed, dtype), variant.action_dim
    batch = draw.batch(dim, variant.gamma, variant.n_steps, variant.valid)
    noise = FQLNoise(
        next_noise=draw.normal(BATCH, dim), x0=draw.normal(BATCH, dim), t=draw.uniform(BATCH, 1), z=draw.normal(BATCH, dim)
    )
    return batch, noise


def model_losses(model: FQL, batch: Batch, noise: FQLNoise) -> dict[str, th.Tensor]:
    actor_loss, metrics = model.actor_loss(batch, noise)
    return {
        "critic_loss": model.critic_loss(batch, noise)[0],
        "bc_flow_loss": model.bc_flow_loss(batch, noise)[0],
        "distill_loss": metrics["distill_loss"],
        "q_loss": metrics["q_loss"],
        "actor_loss": actor_loss,
        "loss": model.loss(batch, noise)[0],
    }


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_losses_and_gradients(variant: Variant) -> None:
    """4.1 to 4.5: each loss, and its gradient to every parameter, in float64."""
    model = variant.model()
    model.policy.double()
    reference = Reference(model, variant)
    batch, noise = random_batch(variant, seed=0)
    expected, found = reference.losses(batch, noise), model_losses(model, batch, noise)
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(value.item(), rel=1e-12, abs=1e-12), name

    # The batch must show what clipping does: some coordinates outside of the box, some inside.
    for obs, z in ((batch.observations, noise.z), (batch.next_observations, noise.next_noise)):
        actions = reference.one_step(obs, z)
        assert 0.05 < (actions.abs() > 1).double().mean().item() < 0.95
    assert 0.05 < (reference.flow(batch.observations, noise.z).abs() == 1).double().mean().item() < 0.95

    found["loss"].backward()
    reference.assert_gradients(model, expected)


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_losses_in_single_precision(variant: Variant) -> None:
    """The same losses in float32, as the package computes them."""
    model = variant.model()
    expected = Reference(model, variant).losses(*random_batch(variant, seed=0))
    found = model_losses(model, *random_batch(variant, seed=0, dtype=th.float32))
    assert_single_precision(found, expected, rel=3e-5)


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_parameters_after_updates(variant: Variant) -> None:
    """4.6: all parameters after five updates, those of the target critics too, in float64."""
    model = variant.model()
    model.policy.double()
    reference = Reference(model, variant)
    start = parameters_of(model)
    for seed in range(5):
        batch, noise = random_batch(variant, seed)
        model.update(batch, noise)
        reference.update(batch, noise)
    reference.assert_parameters(model, start)


def test_update_reports_the_losses() -> None:
    """The metrics are the losses at the parameters before the step."""
    variant = VARIANTS["default"]
    model = variant.model()
    model.policy.double()
    batch, noise = random_batch(variant, seed=0)
    expected = Reference(model, variant).losses(batch, noise)
    metrics = model.update(batch, noise)
    for name in ("critic_loss", "bc_flow_loss", "distill_loss", "q_loss", "actor_loss"):
        assert metrics[name].item() == pytest.approx(expected[name].item(), rel=1e-12)


# Where gradients go.


TERMS: dict[str, tuple[str, Callable[[FQL, Batch, FQLNoise], th.Tensor]]] = {
    "L_Q": ("critic", lambda model, batch, noise: model.critic_loss(batch, noise)[0]),
    "L_BC": ("bc_flow", lambda model, batch, noise: model.bc_flow_loss(batch, noise)[0]),
    "L_D": ("actor", lambda model, batch, noise: model.actor_loss(batch, noise)[1]["distill_loss"]),
    "L_q": ("actor", lambda model, batch, noise: model.actor_loss(batch, noise)[1]["q_loss"]),
}


@pytest.mark.parametrize("pixels", [False, True], ids=["vectors", "pixels"])
@pytest.mark.parametrize("term", TERMS)
def test_gradient_routing(term: str, pixels: bool) -> None:
    """T5: each term has a gradient for one network, with its encoder, and never for a target."""
    variant = Variant(action_dim=2)
    batch, noise = random_batch(variant, 0, th.float32)
    if pixels:
        env = AnySpaces(spaces.Box(0, 255, (1, 8, 8), np.uint8), spaces.Box(-1.0, 1.0, (2,)))
        policy_kwargs = {"net_arch": [8], "features_extractor_kwargs": {"cnn_output_dim": 6}}
        model = FQL("FlowPolicy", env, policy_kwargs=policy_kwargs, device="cpu", seed=0)
        images = th.randint(0, 256, (BATCH, 1, 8, 8), generator=th.Generator().manual_seed(0), dtype=th.uint8)
        batch = batch._replace(observations=images, next_observations=images.flip(2))
    else:
        model = make_model(action_dim=2)
    owner, loss = TERMS[term]
    loss(model, batch, noise).backward()
    for name, parameter in model.policy.named_parameters():
        if name.split(".")[0] == owner:
            assert parameter.grad is not None and parameter.grad.abs().max().item() > 0, name
        else:
            assert parameter.grad is None or not parameter.grad.any(), name
    assert {name.split(".")[0] for name, _ in model.policy.named_parameters()} == set(NETWORKS)


def test_targets_are_copies_that_no_optimizer_holds() -> None:
    """Section 3: the target starts as an exact copy, and only the moving average changes it."""
    policy = make_model(action_dim=2).policy
    held = {id(parameter) for group in policy.optimizer.param_groups for parameter in group["params"]}
    for target, net in zip(policy.critic_target.parameters(), policy.critic.parameters(), strict=True):
        assert th.equal(target, net) and target.data_ptr() != net.data_ptr()
        assert not target.requires_grad and id(target) not in held and id(net) in held
    trained = [p for network in (policy.critic, policy.actor, policy.bc_flow) for p in network.parameters()]
    assert held == {id(parameter) for parameter in trained}


def test_moving_average() -> None:
    """T7: with a constant critic, after n updates the target is phi + (1 - tau)^n (target_0 - phi)."""
    model = make_model(tau=0.1)
    model.policy.double()
    with th.no_grad():
        for parameter in model.policy.critic_target.parameters():
            parameter.normal_()
    start = [parameter.clone() for parameter in model.policy.critic_target.parameters()]
    critic = [parameter.detach().clone() for parameter in model.policy.critic.parameters()]
    for n in range(1, 8):
        model.update_targets()
        for target, phi, first in zip(model.policy.critic_target.parameters(), critic, start, strict=True):
            th.testing.assert_close(target, phi + 0.9**n * (first - phi), rtol=0, atol=1e-14)
    for parameter, phi in zip(model.policy.critic.parameters(), critic, strict=True):
        assert th.equal(parameter, phi)


# Closed forms of the losses.


@pytest.mark.parametrize(
    ("q_agg", "mask", "discount", "target"),
    [("mean", 1, 0.99, 1.97), ("min", 1, 0.99, 0.98), ("mean", 0, 0.99, -1.0), ("min", 0, 0.99, -1.0), ("mean", 1, 0.5, 0.5)],
)
def test_target_arithmetic(q_agg: str, mask: float, discount: float, target: float) -> None:
    """T6: r = -1, target critics {2, 4}. With critics that say {0, 1} the loss is (y^2 + (1 - y)^2) / 2."""
    model = make_model(q_agg=q_agg)
    with th.no_grad():
        for network, values in ((model.policy.critic_target, [2.0, 4.0]), (model.policy.critic, [0.0, 1.0])):
            network.net.weights[-1].zero_()
            network.net.biases[-1].copy_(th.tensor(values).reshape(2, 1, 1))
    batch, noise = random_batch(Variant(action_dim=1), 0, th.float32)
    ones = th.ones(BATCH)
    batch = batch._replace(rewards=-ones, masks=mask * ones, discounts=discount * ones)
    loss, _ = model.critic_loss(batch, noise)
    assert loss.item() == pytest.approx((target**2 + (1 - target) ** 2) / 2, rel=1e-5)


class FreeActions:
    """``actor_loss`` with the actions themselves as parameters, a given Q, and given actions of the flow."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, q: Callable[[th.Tensor], th.Tensor], flow_actions: th.Tensor, **kwargs: Any
    ) -> None:
        self.model = make_model(action_dim=flow_actions.shape[1], **kwargs)
        self.actions = flow_actions.clone().requires_grad_()
        policy = self.model.policy
        monkeypatch.setattr(policy, "one_step", lambda network, observations, noise: self.actions)
        monkeypatch.setattr(policy, "act_bc_flow", lambda observations, noise: flow_actions)

        # Two critics around Q, so that the mean is Q and the minimum is not.
        def q_values(network: Any, observations: th.Tensor, actions: th.Tensor, frozen: bool) -> th.Tensor:
            return th.stack([q(actions) - 0.3 * actions[:, 0], q(actions) + 0.3 * actions[:, 0]])

        monkeypatch.setattr(policy, "q_values", q_values)
        ones, obs = th.ones(len(flow_actions), dtype=th.float64), th.zeros(len(flow_actions), OBS_DIM, dtype=th.float64)
        self.batch = Batch(obs, flow_actions, ones, ones, ones, obs, ones)
        self.noise = FQLNoise(flow_actions, flow_actions, ones[:, None], flow_actions)

    def gradient(self) -> th.Tensor:
        """One row per sample, of that sample's objective (the loss is a mean)."""
        loss, _ = self.model.actor_loss(self.batch, self.noise)
        (gradient,) = th.autograd.grad(loss, self.actions)
        return gradient * len(self.actions)

    def descend(self, step: float, n_steps: int = 400) -> th.Tensor:
        for _ in range(n_steps):
            gradient = self.gradient()
            with th.no_grad():
                self.actions -= step * gradient
        return self.actions.detach()


FLOW_ACTIONS = th.tensor([[0.1, -0.2, 0.3], [0.0, 0.5, -0.4]], dtype=th.float64)
DIRECTION = th.tensor([0.3, -0.5, 0.2], dtype=th.float64)


def test_optimum_for_linear_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """T3: for Q = c . a, descent ends at flow action + d c / (2 alpha): every atom moves by the same vector."""
    free = FreeActions(monkeypatch, lambda a: a @ DIRECTION, FLOW_ACTIONS, alpha=4.0)
    th.testing.assert_close(free.descend(0.1), FLOW_ACTIONS + 3 * DIRECTION / 8, rtol=0, atol=1e-10)


def test_optimum_for_quadratic_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """T3: for Q = -k/2 |a - b|^2, descent ends at (k b + (2 alpha / d) flow action) / (k + 2 alpha / d)."""
    k, b, alpha = 2.0, th.tensor([0.6, 0.0, -0.5], dtype=th.float64), 1.5
    free = FreeActions(monkeypatch, lambda a: -k / 2 * (a - b).square().sum(dim=1), FLOW_ACTIONS, alpha=alpha)
    weight = 2 * alpha / 3
    th.testing.assert_close(free.descend(0.1), (k * b + weight * FLOW_ACTIONS) / (k + weight), rtol=0, atol=1e-10)


def test_optimum_for_normalized_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """T3 with ``normalize_q_loss``: c is divided by the mean of |Q| over the batch, which is a constant to the gradient."""

    def q(actions: th.Tensor) -> th.Tensor:
        return actions @ DIRECTION - 2.0  # of one sign, so that a scale inside the gradient would cancel it

    free = FreeActions(monkeypatch, q, FLOW_ACTIONS, alpha=1.0, normalize_q_loss=True)
    found = free.descend(0.1)
    size = q(found).abs().mean()
    th.testing.assert_close(found, FLOW_ACTIONS + 3 * DIRECTION / (2 * size), rtol=0, atol=1e-10)
    assert (found - FLOW_ACTIONS).abs().max().item() > 0.1


def test_strong_distillation(monkeypatch: pytest.MonkeyPatch) -> None:
    """T4: alpha to infinity, or Q = 0, gives the flow's action, noise by noise."""
    for alpha, slope, tolerance in ((1e6, 1.0, 1e-5), (1.0, 0.0, 1e-12)):
        free = FreeActions(monkeypatch, lambda a, slope=slope: slope * (a @ DIRECTION), FLOW_ACTIONS, alpha=alpha)
        with th.no_grad():
            free.actions += 0.4
        th.testing.assert_close(free.descend(0.5 / alpha), FLOW_ACTIONS, rtol=0, atol=tolerance)


def test_no_distillation(monkeypatch: pytest.MonkeyPatch) -> None:
    """T4: with alpha = 0, a linear Q drives actions to a corner of the box, at most one step beyond it."""
    free = FreeActions(monkeypatch, lambda a: a @ DIRECTION, FLOW_ACTIONS, alpha=0.0)
    found = free.descend(0.1)
    th.testing.assert_close(found.clamp(-1, 1), DIRECTION.sign().expand_as(found), rtol=0, atol=0)
    assert found.abs().max().item() <= 1 + 0.1 * 0.5


def test_outside_of_the_box(monkeypatch: pytest.MonkeyPatch) -> None:
    """4.3, 4.4 and pitfall 5: outside the box Q pulls no more, and the distillation brings the action back."""
    free = FreeActions(monkeypatch, lambda a: a @ DIRECTION, FLOW_ACTIONS, alpha=3.0)
    with th.no_grad():
        free.actions[0, 0], free.actions[1, 1] = 1.5, -2.0
    distance = free.actions.detach() - FLOW_ACTIONS
    expected = 2 * 3.0 * distance / 3 - DIRECTION
    expected[0, 0] += DIRECTION[0]
    expected[1, 1] += DIRECTION[1]
    th.testing.assert_close(free.gradient(), expected, rtol=0, atol=1e-12)


def sorted_distance(first: th.Tensor, second: th.Tensor) -> float:
    """The squared 2-Wasserstein distance of two one-dimensional samples of the same size."""
    return (first.flatten().sort().values - second.flatten().sort().values).square().mean().item()


@pytest.mark.parametrize("seed", range(3))
def test_wasserstein_bound(seed: int) -> None:
    """T9: for one action dimension, L_D is at least the squared Wasserstein distance of one-step and flow actions."""
    model = make_model(seed=seed)
    generator = th.Generator().manual_seed(seed)
    with th.no_grad():
        for parameter in model.policy.parameters():
            parameter.add_(0.1 * th.randn(parameter.shape, generator=generator))
    n = 2000
    z, obs = th.randn(n, 1, generator=generator), th.randn(1, OBS_DIM, generator=generator).expand(n, -1)
    ones = th.ones(n)
    loss = model.actor_loss(Batch(obs, z, ones, ones, ones, obs, ones), FQLNoise(z, z, ones[:, None], z))[1]["distill_loss"]
    with th.no_grad():
        one_step, flow = model.policy.one_step(model.policy.actor, obs, z), model.policy.act_bc_flow(obs, z)
    assert one_step.std().item() > 0.01 and flow.std().item() > 0.01
    assert sorted_distance(one_step, flow) > 1e-3
    assert loss.item() >= sorted_distance(one_step, flow) - 1e-6


def test_wasserstein_bound_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """T9: where one policy is the other one shifted by c, in d dimensions, d L_D = |c|^2, the distance itself."""
    free = FreeActions(monkeypatch, lambda a: 0 * a[:, 0], FLOW_ACTIONS, alpha=1.0)
    shift = th.tensor([0.3, 0.1, -0.2], dtype=th.float64)
    with th.no_grad():
        free.actions += shift
    loss = free.model.actor_loss(free.batch, free.noise)[1]["distill_loss"]
    assert 3 * loss.item() == pytest.approx(shift.square().sum().item(), rel=1e-12)


# Acting.


def test_flow_is_clipped_once_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """4.3: a path may leave the box on its way and return; only its end is clipped. It takes ``flow_steps`` steps."""
    policy = make_model(flow_steps=4).policy
    times: list[float] = []

    def velocity(x: th.Tensor, t: th.Tensor) -> th.Tensor:
        times.append(t[0].item())
        return th.where(t < 0.5, 6.0, -6.0)  # steps of 1.5: out to 3, and back

    monkeypatch.setattr(policy, "velocity", lambda network, observations: velocity)
    z = th.tensor([[0.25], [-0.5], [1.75], [-3.0]])
    actions = policy.act_bc_flow(th.zeros(4, OBS_DIM), z)
    assert actions.flatten().tolist() == [0.25, -0.5, 1.0, -1.0]
    assert times == [0.0, 0.25, 0.5, 0.75]


def test_one_flow_step_is_the_mean_of_the_data() -> None:
    """T2: for data that does not depend on noise, v(z, 0) = E[a] - z; one Euler step then gives E[a] for every z."""
    model = make_model(action_dim=2, flow_steps=1, net_arch=(8,), policy_kwargs={"activation": "relu"})
    mean = th.tensor([0.3, -0.6])
    with th.no_grad():  # relu(z) - relu(-z) = z, which makes the field exact
        first, last = model.policy.bc_flow.net.layers
        for layer in (first, last):
            layer.weight.zero_()
            layer.bias.zero_()
        for i in range(2):
            first.weight[2 * i, OBS_DIM + i], first.weight[2 * i + 1, OBS_DIM + i] = 1.0, -1.0
            last.weight[i, 2 * i], last.weight[i, 2 * i + 1] = -1.0, 1.0
        last.bias.copy_(mean)
    z = 3 * th.randn(50, 2)
    actions = model.policy.act_bc_flow(th.randn(50, OBS_DIM), z)
    th.testing.assert_close(actions, mean.expand(50, 2), rtol=0, atol=1e-6)


@pytest.mark.parametrize("sampler", ["one_step", "bc_flow"])
def test_samplers(sampler: str) -> None:
    """Section 5: a sampler clips to the box; deterministic means zero noise; actions are scaled to the action space."""
    variant = Variant(action_dim=2)
    model = variant.model()
    reference = Reference(model, variant)
    policy = model.policy.with_sampler(sampler)
    assert model.policy.sampler == "one_step"  # the default is what FQL acts with, and stays so
    batch, noise = random_batch(variant, 0, th.float32)
    exact = reference.flow if sampler == "bc_flow" else lambda s, z: reference.one_step(s, z).clip(-1, 1)
    obs, z = batch.observations, noise.z
    with th.no_grad():
        th.testing.assert_close(policy.act(obs, z).double(), exact(obs.double(), z.double()), rtol=0, atol=1e-5)
        middle = exact(obs.double(), th.zeros(BATCH, 2, dtype=th.float64)).numpy()
    first, state = policy.predict(obs.numpy(), deterministic=True)
    assert state is None
    np.testing.assert_allclose(first, middle, atol=1e-5)
    np.testing.assert_array_equal(policy.predict(obs.numpy(), deterministic=True)[0], first)
    th.manual_seed(0)
    samples = np.stack([policy.predict(obs.numpy(), deterministic=False)[0] for _ in range(20)])
    assert np.abs(samples).max() <= 1 and samples.std(axis=0).max() > 0.05


def test_actions_are_unscaled() -> None:
    """``predict`` acts in the units of the environment."""
    low, high = np.array([0.0, -2.0], dtype=np.float32), np.array([512.0, 6.0], dtype=np.float32)
    env = AnySpaces(spaces.Box(-1.0, 1.0, (OBS_DIM,)), spaces.Box(low, high))
    model = FQL("FlowPolicy", env, policy_kwargs={"net_arch": [8]}, device="cpu", seed=0)
    obs = np.linspace(-1, 1, OBS_DIM, dtype=np.float32)
    with th.no_grad():
        inside = model.policy.act(th.as_tensor(obs)[None], th.zeros(1, 2))[0].numpy()
    assert np.abs(inside).max() > 0.01
    np.testing.assert_allclose(model.predict(obs, deterministic=True)[0], low + (inside + 1) / 2 * (high - low), rtol=1e-5)


def test_noise() -> None:
    """4.1 to 4.3: three independent standard normals and a uniform time for each sample; a seed repeats them."""
    model, n = make_model(action_dim=2), 40_000
    noise = model.draw_noise(n)
    assert noise.t.shape == (n, 1) and noise.t.min().item() >= 0 and noise.t.max().item() <= 1
    counts = th.histc(noise.t, bins=10, min=0, max=1)
    assert ((counts - n / 10) ** 2 / (n / 10)).sum().item() < 9 + 5 * math.sqrt(18)
    columns = th.cat([noise.next_noise, noise.x0, noise.z, noise.t], dim=1)
    assert columns.shape == (n, 7)
    normal = columns[:, :6]
    assert normal.mean(dim=0).abs().max().item() < 5 / math.sqrt(n)
    assert (normal.std(dim=0) - 1).abs().max().item() < 5 / math.sqrt(2 * n)
    assert ((normal**4).mean(dim=0) - 3).abs().max().item() < 0.3
    assert (th.corrcoef(columns.T) - th.eye(7)).abs().max().item() < 5 / math.sqrt(n)
    for again, first in zip(make_model(action_dim=2).draw_noise(n), noise, strict=True):
        assert th.equal(again, first)


# Arguments.


def test_published_defaults() -> None:
    """Section 6.1, and Adam's own parameters of section 3."""
    model = make_model()
    expected = dict(learning_rate=3e-4, batch_size=256, tau=0.005, gamma=0.99, n_steps=1)
    expected |= dict(q_agg="mean", normalize_q_loss=False, normalize_observations=False)
    assert {name: getattr(model, name) for name in expected} == expected
    assert (model.policy.flow_steps, model.policy.horizon_length) == (10, 1)
    policy = FQLPolicy(spaces.Box(-1, 1, (3,)), spaces.Box(-1, 1, (2,)), lambda _: 3e-4)
    assert [layer.out_features for layer in policy.bc_flow.net.layers] == [512, 512, 512, 512, 2]
    assert [tuple(weight.shape) for weight in policy.critic.net.weights] == [(2, 5, 512), *[(2, 512, 512)] * 3, (2, 512, 1)]
    assert policy.critic.net.layer_norm
    assert type(policy.optimizer) is th.optim.Adam and len(policy.optimizer.param_groups) == 1
    group = policy.optimizer.param_groups[0]
    assert (group["lr"], group["betas"], group["eps"], group["weight_decay"]) == (3e-4, (0.9, 0.999), 1e-8, 0)
    assert not group["amsgrad"]


def test_bad_arguments() -> None:
    """Each error names the argument and its allowed values."""
    with pytest.raises(ValueError, match=r"q_agg.*'mean' or 'min'"):
        make_model(q_agg="max")
    with pytest.raises(ValueError, match="alpha"):
        make_model(alpha=-1.0)
    with pytest.raises(ValueError, match="flow_steps"):
        make_model(flow_steps=0)
    with pytest.raises(ValueError, match=r"'flow'.*one_step, bc_flow"):
        make_model().policy.with_sampler("flow")


# Short trainings whose result is known.


@pytest.mark.slow
@pytest.mark.parametrize(("q_agg", "n_steps"), [("mean", 1), pytest.param("min", 3, marks=pytest.mark.nightly)])
def test_values_of_a_chain(q_agg: str, n_steps: int) -> None:
    """
    T8: states k = 0 .. 5 steps before success, reward -1 until then, 0 at success, where the task ends. Actions do not
    matter, so Q = -(1 - gamma^k) / (1 - gamma), whatever number of steps the returns have.
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
    model = make_model(
        obs_dim=length + 2,
        net_arch=(32, 32),
        dataset=data,
        gamma=gamma,
        n_steps=n_steps,
        q_agg=q_agg,
        tau=0.1,
        learning_rate=3e-3,
        batch_size=128,
        flow_steps=1,
        offline_log_interval=10_000,
    )
    model.learn(500)
    policy = model.policy
    actions = th.linspace(-1, 1, 5)[:, None]
    with th.no_grad():
        for steps in range(length + 1):
            qs = policy.q_values(policy.critic, th.from_numpy(identity[[steps] * 5]), actions)
            expected = -(1 - gamma**steps) / (1 - gamma)
            th.testing.assert_close(qs, th.full((2, 5), expected), rtol=0, atol=0.25)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_two_modes(seed: int) -> None:
    """
    A bandit whose data sits around -0.5 and 0.5 (one action in ten lies anywhere, so that the critic knows Q = a between
    them). The flow keeps both modes and their mass. The one-step actor is the flow moved by c / (2 alpha) = 0.25 towards
    the better side, noise by noise (T3): its modes move, and keep their mass. One Euler step instead of ten gives the
    mean of the data for every noise (T2).
    """
    rng = np.random.default_rng(seed)
    n = 4000
    actions = rng.choice([-0.5, 0.5], (n, 1)) + 0.05 * rng.normal(size=(n, 1))
    actions = np.where(rng.random((n, 1)) < 0.1, rng.uniform(-1, 1, (n, 1)), actions)
    data = dict(observations=np.ones((n, 1)), actions=actions, rewards=actions[:, 0], terminations=np.ones(n))
    model = make_model(obs_dim=1, net_arch=(32, 32), dataset=data, alpha=2.0, learning_rate=3e-3, batch_size=128, seed=seed)
    model.learn(700)
    policy = model.policy
    z = th.randn(2000, 1, generator=th.Generator().manual_seed(seed))
    obs = th.ones(2000, 1)
    with th.no_grad():
        flow, one_step = policy.act_bc_flow(obs, z), policy.act_one_step(obs, z)
        policy.flow_steps = 1
        mean = policy.act_bc_flow(obs, z)
    assert (flow > 0).double().mean().item() == pytest.approx(0.5, abs=0.1)
    assert ((flow.abs() - 0.5).abs() < 0.2).double().mean().item() > 0.65  # the mean of the data is no such place
    moved = one_step - flow
    assert moved.mean().item() == pytest.approx(0.25, abs=0.1)
    assert (moved - 0.25).square().mean().sqrt().item() < 0.15
    assert (one_step > 0.25).double().mean().item() == pytest.approx(0.5, abs=0.1)
    assert mean.mean().item() == pytest.approx(0.0, abs=0.25)
    assert mean.std().item() < 0.3
