"""
SWFP against a second implementation: the equations of its specification, written out slowly in float64, and its properties.

``Reference`` shares no code with the package; it is built from ``transcription``. Section numbers are those of the method's
specification.
"""

import itertools
import math
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch as th
from conformance.environments import pendulum
from transcription import BATCH, OBS_DIM, SEEDS, Draw, Transcription, box_env, each_column, shake

from sb3_flow import FPMD, FQL, GFP, QAM, SWFP
from sb3_flow.baselines.whole_flow import WholeFlow, WholeFlowPolicy
from sb3_flow.common.type_aliases import Batch, TensorObs
from sb3_flow.swfp import SWFPPolicy, blocks
from sb3_flow.swfp.blocks import Blocks, log_det
from sb3_flow.swfp.swfp import SWFPNoise

SCALE = 0.25


def make_model(
    policy: Any = "FlowPolicy", obs_dim: int = OBS_DIM, action_dim: int = 1, cls: type[SWFP] = SWFP, **kwargs: Any
) -> Any:
    policy_kwargs = {"net_arch": [24, 16], "block_arch": [12, 8], **kwargs.pop("policy_kwargs", {})}
    return cls(policy, box_env(obs_dim, action_dim), policy_kwargs=policy_kwargs, device="cpu", **{"seed": 0, **kwargs})


# The second implementation.


@dataclass
class Variant:
    flow_steps: int = 4
    n_blocks: int = 3
    radius: float = 0.05
    h_max: float = 0.05
    entropy_coef: float = 0.02
    box_coef: float = 10.0
    heat: bool = False
    q_agg: str = "mean"
    bc_steps: int = 2
    critic_steps: int = 2
    absorb_interval: int = 0
    absorb_steps: int = 1
    absorb_tolerance: float = 0.1
    max_grad_norm: float | None = 1.0
    horizon_length: int = 1
    n_steps: int = 1
    gamma: float = 0.99
    tau: float = 0.005
    learning_rate: float = 3e-4
    # Not arguments of the algorithm:
    action_dim: int = 2
    n_critics: int = 2
    valid: float = 1.0

    @property
    def dim(self) -> int:
        """Size of an action, or of a chunk of them."""
        return self.action_dim * self.horizon_length

    @property
    def chain_dim(self) -> int:
        return self.dim * (1 + self.n_blocks if self.heat else 1)

    def model(self, cls: type[SWFP] = SWFP) -> Any:
        """A model in float64 whose parameters are all random, and which believes that it has data."""
        others = ("action_dim", "n_critics", "valid")
        model = make_model(
            cls=cls,
            action_dim=self.action_dim,
            policy_kwargs={"n_critics": self.n_critics},
            **{name: value for name, value in vars(self).items() if name not in others},
        )
        shake(model)
        with th.no_grad():  # so that some actions leave the box, and not all
            for network in (model.policy.bc_flow, model.policy.base):
                network.net.layers[-1].weight.mul_(SCALE)
        model.policy.double()
        model.policy.log_eta.fill_(math.log(100.0))  # not as rounded to single precision
        model.dataset_name = "data"
        return model


VARIANTS = {
    "plain": Variant(),
    "one dimension, one block": Variant(action_dim=1, n_blocks=1, n_critics=1),
    "minimum, fast": Variant(q_agg="min", n_critics=3, learning_rate=0.02, tau=0.3, n_steps=3),
    "no entropy, no clipping": Variant(entropy_coef=0.0, max_grad_norm=None, box_coef=0.0),
    "strong entropy": Variant(entropy_coef=0.5, radius=0.5, h_max=0.5, learning_rate=0.01, action_dim=3),
    "many dimensions": Variant(action_dim=7, horizon_length=2, n_blocks=2, entropy_coef=0.3, gamma=0.9, valid=0.6),
    "heat": Variant(heat=True, entropy_coef=0.3, n_blocks=2),
    "absorbing": Variant(absorb_interval=3, absorb_steps=2, learning_rate=0.01),
}


def mish(x: th.Tensor) -> th.Tensor:
    return x * th.tanh(th.log(1 + th.exp(x)))


class Reference(Transcription):
    """Section 4, literally; the stages and the absorption are choices of ours, as ``docs/swfp.md`` says."""

    targets: ClassVar[dict[str, str]] = {"critic_target": "critic", "base": "bc_flow"}
    variant: Variant

    def __init__(self, model: SWFP, variant: Variant) -> None:
        super().__init__(model, variant)
        self.log_eta = [math.log(100.0)] * variant.n_blocks
        self.scale_sum, self.scale_weight = 0.0, 0.0
        self.steps: Counter[str] = Counter()
        self.n_clone, self.n_critic, self.n_block = 0, 0, 0

    def base_actions(self, network: str, s: th.Tensor, z: th.Tensor) -> th.Tensor:
        return self.euler(lambda x, t: self.mlp(network, s, x, t), z, self.variant.flow_steps)

    def displacement(self, n: int, s: th.Tensor, a: th.Tensor) -> th.Tensor:
        hidden = th.cat([s, a], dim=1)
        for layer in range(3):
            hidden = hidden @ self.parameters[f"blocks.weights.{layer}"][n] + self.parameters[f"blocks.biases.{layer}"][n, 0]
            if layer < 2:
                hidden = mish(hidden)
        return hidden

    def chain(self, s: th.Tensor, z: th.Tensor) -> list[th.Tensor]:
        """4.3: ``a_0`` to ``a_N``, without gradient."""
        d = self.variant.dim
        actions = [th.clip(self.base_actions("base", s, z[:, :d]), -1, 1).detach()]
        for n in range(self.variant.n_blocks):
            a = actions[-1] + self.displacement(n, s, actions[-1]).detach()
            if self.variant.heat:  # N(0, 2 beta h) with h = 1 / (2 eta)
                h = 1 / (2 * math.exp(self.log_eta[n]))
                a = a + math.sqrt(2 * self.variant.entropy_coef * h) * z[:, (n + 1) * d : (n + 2) * d]
            actions.append(a)
        return actions

    def q_all(self, network: str, s: th.Tensor, a: th.Tensor) -> th.Tensor:
        return th.stack([self.q(network, k, s, a) for k in range(self.variant.n_critics)])

    def energy_value(self, s: th.Tensor, a: th.Tensor) -> th.Tensor:
        return self.q_all("critic", s, th.clip(a, -1, 1)).sum(dim=0) / self.variant.n_critics

    @property
    def scale(self) -> float:
        return max(self.scale_sum / max(self.scale_weight, 1e-8), 1e-3)

    def bc_flow_loss(self, batch: Batch, noise: SWFPNoise) -> th.Tensor:
        """4.1"""
        x_t = (1 - noise.t) * noise.x0 + noise.t * batch.actions
        error = self.mlp("bc_flow", batch.observations, x_t, noise.t) - (batch.actions - noise.x0)
        return (batch.valids[:, None] * error**2).sum() / (BATCH * self.variant.dim)

    def critic_loss(self, batch: Batch, noise: SWFPNoise) -> th.Tensor:
        """4.6"""
        next_actions = th.clip(self.chain(batch.next_observations, noise.next_noise)[-1], -1, 1)
        next_qs = self.q_all("critic_target", batch.next_observations, next_actions).detach()
        next_q = next_qs.amin(dim=0) if self.variant.q_agg == "min" else next_qs.mean(dim=0)
        y = batch.rewards + batch.discounts * batch.masks * next_q
        errors = (self.q_all("critic", batch.observations, batch.actions) - y) ** 2
        return (batch.valids * errors).sum() / (BATCH * self.variant.n_critics)

    def entropy(self, n: int, s: th.Tensor, a: th.Tensor, probe: th.Tensor) -> th.Tensor:
        """The logarithm of the determinant, or its estimate, from the whole Jacobian of every sample."""
        a = a.clone().requires_grad_()
        f = self.displacement(n, s, a)
        rows = [th.autograd.grad(f[:, i].sum(), a, create_graph=True)[0] for i in range(self.variant.dim)]
        jacobian = th.stack(rows, dim=1)
        total = []
        for J, e in zip(jacobian, probe, strict=True):
            if self.variant.dim <= 12:
                total.append(th.log(th.abs(th.linalg.det(th.eye(self.variant.dim, dtype=th.float64) + J))))
            else:
                total.append(e @ J @ e - 0.5 * (J.T @ e) @ (J @ e))
        return th.stack(total)

    def block_loss(self, batch: Batch, noise: SWFPNoise, chain: list[th.Tensor]) -> th.Tensor:
        """4.3"""
        v, s = self.variant, batch.observations
        loss = th.zeros((), dtype=th.float64)
        for n in range(v.n_blocks):
            f = self.displacement(n, s, chain[n])
            b = chain[n] + f
            clipped = th.clip(b, -1, 1)
            terms = -self.energy_value(s, b) / self.scale
            terms = terms + math.exp(self.log_eta[n]) * (f**2).sum(dim=1) + v.box_coef * ((b - clipped) ** 2).sum(dim=1)
            if v.entropy_coef > 0 and not v.heat:
                terms = terms - v.entropy_coef * self.entropy(n, s, chain[n], noise.probe.double())
            loss = loss + terms.mean()
        return loss

    def absorption_loss(self, batch: Batch, noise: SWFPNoise, chain: list[th.Tensor]) -> th.Tensor:
        """4.7"""
        end, start = th.clip(chain[-1], -1, 1), noise.z[:, : self.variant.dim]
        x_t = (1 - noise.t) * start + noise.t * end
        return ((self.mlp("bc_flow", batch.observations, x_t, noise.t) - (end - start)) ** 2).mean()

    def adam(self, network: str, loss: th.Tensor, max_norm: float | None = None) -> None:
        own = {name: parameter for name, parameter in self.trained.items() if name.split(".")[0] == network}
        gradients = list(th.autograd.grad(loss, list(own.values())))
        if max_norm is not None:
            norm = math.sqrt(sum((gradient**2).sum().item() for gradient in gradients))
            gradients = [gradient * min(1.0, max_norm / norm) for gradient in gradients]
        self.steps[network] += 1
        n = self.steps[network]
        with th.no_grad():
            for (name, parameter), gradient in zip(own.items(), gradients, strict=True):
                first = self.first_moment[name] = 0.9 * self.first_moment[name] + 0.1 * gradient
                second = self.second_moment[name] = 0.999 * self.second_moment[name] + 0.001 * gradient**2
                first, second = first / (1 - 0.9**n), second / (1 - 0.999**n)
                parameter -= self.variant.learning_rate * first / (th.sqrt(second) + 1e-8)

    def follow(self, target: str) -> None:
        with th.no_grad():
            for name, parameter in self.parameters.items():
                owner, *rest = name.split(".")
                if owner == target:
                    net = self.parameters[".".join([self.targets[target], *rest])]
                    parameter.copy_(self.variant.tau * net + (1 - self.variant.tau) * parameter)

    def update(self, batch: Batch, noise: SWFPNoise) -> dict[str, float]:
        """4.8, and what is reported."""
        v, s = self.variant, batch.observations
        if self.n_clone < v.bc_steps:
            self.n_clone += 1
            loss = self.bc_flow_loss(batch, noise)
            self.adam("bc_flow", loss)
            self.follow("base")
            return {"bc_flow_loss": loss.item()}
        critic_loss = self.critic_loss(batch, noise)
        metrics = {"critic_loss": critic_loss.item()}
        self.adam("critic", critic_loss)
        self.follow("critic_target")
        self.n_critic += 1
        if self.n_critic <= v.critic_steps:
            return metrics
        chain = self.chain(s, noise.z)
        middle = th.clip(chain[-1], -1, 1)
        around = th.stack([self.energy_value(s, middle + 0.2 * noise.around[j]).detach() for j in range(8)])
        spread = th.sqrt(((around - around.mean(dim=0)) ** 2).sum(dim=0) / 7).mean().item()
        self.scale_sum = 0.99 * self.scale_sum + 0.01 * spread
        self.scale_weight = 0.99 * self.scale_weight + 0.01
        block_loss = self.block_loss(batch, noise, chain)
        metrics["block_loss"] = block_loss.item()
        square = [(self.displacement(n, s, chain[n]) ** 2).mean().item() for n in range(v.n_blocks)]
        self.adam("blocks", block_loss, v.max_grad_norm)
        for n in range(v.n_blocks):
            self.log_eta[n] += 0.02 * (math.log(square[n] + 1e-12) - 2 * math.log(v.radius))
            self.log_eta[n] = min(max(self.log_eta[n], math.log(1 / (2 * v.h_max))), math.log(1e4))
        self.n_block += 1
        if v.absorb_interval > 0 and self.n_block > v.absorb_interval - v.absorb_steps:
            self.adam("bc_flow", self.absorption_loss(batch, noise, chain))
            if self.n_block in (v.absorb_interval, v.absorb_interval + v.absorb_steps):
                after = self.energy_value(s, self.base_actions("bc_flow", s, noise.z[:, : v.dim])).mean()
                if abs(after - self.energy_value(s, chain[-1]).mean()) <= v.absorb_tolerance * self.scale:
                    self.absorb()
        return metrics

    def absorb(self) -> None:
        self.n_block, self.log_eta = 0, [math.log(100.0)] * self.variant.n_blocks
        self.steps["blocks"] = 0
        with th.no_grad():
            for name, parameter in self.parameters.items():
                owner, *rest = name.split(".")
                if owner == "base":
                    parameter.copy_(self.parameters[".".join(["bc_flow", *rest])])
                if owner == "blocks":
                    self.first_moment[name], self.second_moment[name] = th.zeros_like(parameter), th.zeros_like(parameter)
                    if rest[1] == "2":
                        parameter.zero_()


def random_batch(variant: Variant, seed: int) -> tuple[Batch, SWFPNoise]:
    draw = Draw(seed)
    batch = draw.batch(variant.dim, variant.gamma, variant.n_steps, variant.valid)
    x0, t = draw.normal(BATCH, variant.dim), draw.uniform(BATCH, 1)
    next_noise, z = draw.normal(BATCH, variant.chain_dim), draw.normal(BATCH, variant.chain_dim)
    probe = th.as_tensor(draw.rng.choice([-1, 1], (BATCH, variant.dim)))
    return batch, SWFPNoise(x0, t, next_noise, z, draw.normal(8, BATCH, variant.dim), probe)


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_losses_and_gradients(variant: Variant) -> None:
    """All four losses at the same parameters, and their gradients to every parameter, in float64."""
    model = variant.model()
    reference = Reference(model, variant)
    reference.scale_sum, reference.scale_weight = 0.3, 0.5
    model.policy.energy_statistics.copy_(th.tensor([0.3, 0.5], dtype=th.float64))
    batch, noise = random_batch(variant, seed=0)
    chain = reference.chain(batch.observations, noise.z)
    expected = {
        "bc_flow_loss": reference.bc_flow_loss(batch, noise),
        "critic_loss": reference.critic_loss(batch, noise),
        "block_loss": reference.block_loss(batch, noise, chain),
        "absorption_loss": reference.absorption_loss(batch, noise, chain),
    }
    loss, metrics = model.loss(batch, noise)
    for name, value in expected.items():
        assert metrics[name].item() == pytest.approx(value.item(), rel=1e-11), name
    assert loss.item() == pytest.approx(sum(value.item() for value in expected.values()), rel=1e-11)
    loss.backward()
    own = dict(model.policy.named_parameters())
    descended = {"critic": ["critic_loss"], "blocks": ["block_loss"], "bc_flow": ["bc_flow_loss", "absorption_loss"]}
    for network, names in descended.items():
        trained = {name: parameter for name, parameter in reference.trained.items() if name.split(".")[0] == network}
        losses = sum((expected[name] for name in names), th.zeros((), dtype=th.float64))
        for name, gradient in zip(trained, th.autograd.grad(losses, list(trained.values())), strict=True):
            th.testing.assert_close(own[name].grad, gradient, rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.parametrize("accepts", [True, False])
@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_updates(variant: Variant, accepts: bool) -> None:
    """4.8: every parameter and statistic after updates in all three stages, absorbing or not."""
    if accepts and variant.absorb_interval == 0:
        pytest.skip("nothing to accept")
    variant = replace(variant, absorb_tolerance=1e9 if accepts else 0.0)
    model = variant.model()
    reference = Reference(model, variant)
    stages = []
    for seed in range(10):
        stages.append(model.stage)
        batch, noise = random_batch(variant, seed)
        expected = reference.update(batch, noise)
        metrics = model.update(batch, noise)
        for name, value in expected.items():
            assert metrics[name].item() == pytest.approx(value, rel=1e-9), (seed, name)
    assert stages == ["clone"] * 2 + ["evaluate"] * 2 + ["improve"] * 6
    assert model.n_block_updates == reference.n_block == (0 if accepts else 6)
    for name, parameter in model.policy.named_parameters():
        th.testing.assert_close(parameter.detach(), reference.parameters[name].detach(), rtol=1e-8, atol=1e-10, msg=name)
    th.testing.assert_close(model.policy.log_eta, th.tensor(reference.log_eta, dtype=th.float64))
    expected_statistics = th.tensor([reference.scale_sum, reference.scale_weight], dtype=th.float64)
    th.testing.assert_close(model.policy.energy_statistics, expected_statistics)


# Closed forms. The energy is a function of the action that is known.


class KnownEnergy(SWFPPolicy):
    """A policy whose critics are replaced by ``energy``, a function of actions in [-1, 1]."""

    energy: Any = None

    def energies(self, observations: TensorObs, actions: th.Tensor) -> th.Tensor:
        value: th.Tensor = self.energy(actions.clamp(-1, 1))
        return value


def known(energy: Any, action_dim: int = 1, **kwargs: Any) -> SWFP:
    model = make_model(KnownEnergy, obs_dim=1, action_dim=action_dim, **kwargs)
    model.policy.energy = energy
    return model


def nothing_to_see(n: int, dim: int) -> Batch:
    """A batch of one and the same state, where the task ends."""
    zeros = th.zeros(n)
    return Batch(th.zeros(n, 1), th.zeros(n, dim), zeros, zeros, zeros, th.zeros(n, 1), zeros + 1)


def jko(m: float, s: float, mu: float, kappa: float, h: float, beta: float) -> tuple[float, float]:
    """10.2.1: one step from N(m, s^2) in the energy ``kappa (a - mu)^2 / 2``."""
    return (m + h * kappa * mu) / (1 + h * kappa), (s + math.sqrt(s * s + 4 * h * beta * (1 + h * kappa))) / (
        2 + 2 * h * kappa
    )


@pytest.mark.slow
def test_01_jko_step_minimizes_the_free_energy() -> None:
    """The closed form that the next test trusts: against a fine grid, and the specification's table."""
    kappa, mu, h, beta, m0, s0 = 2.0, 1.0, 0.3, 0.1, 0.0, 1.0
    m, s = np.meshgrid(np.linspace(-1, 2, 3001), np.linspace(0.01, 2, 3001), indexing="ij")
    free = kappa / 2 * ((m - mu) ** 2 + s**2) - beta * np.log(s) + ((m - m0) ** 2 + (s - s0) ** 2) / (2 * h)
    at = np.unravel_index(free.argmin(), free.shape)
    assert (m[at], s[at]) == pytest.approx(jko(m0, s0, mu, kappa, h, beta), abs=1e-3)
    table = [(0.3750, 0.6537), (0.6094, 0.4502), (0.7559, 0.3370), (0.8474, 0.2781)]
    step = (m0, s0)
    for row in table:
        step = jko(*step, mu, kappa, h, beta)
        assert step == pytest.approx(row, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_03_trained_cascade_is_a_sequence_of_jko_steps(seed: int) -> None:
    """10.2.3, in units of 0.2 so that nothing leaves the box."""
    kappa, mu, h, beta, unit = 2.0, 1.0, 0.3, 0.1, 0.2
    model = known(
        lambda a: -kappa / 2 * (a[..., 0] / unit - mu) ** 2,
        n_blocks=3,
        entropy_coef=beta,
        learning_rate=1e-2,
        max_grad_norm=None,
        seed=seed,
        policy_kwargs={"block_arch": [32]},
    )
    policy = model.policy
    policy.log_eta.fill_(-math.log(2 * h * unit**2))
    policy.energy_statistics.fill_(1.0)
    generator = th.Generator().manual_seed(seed)
    batch = nothing_to_see(256, 1)
    features = th.zeros(256, 1)
    noise = SWFPNoise(*(th.zeros(256, 1) for _ in SWFPNoise._fields))
    for step in range(800):
        for group in policy.block_optimizer.param_groups:
            group["lr"] = 1e-2 if step < 500 else 1e-3
        with th.no_grad():
            chain = policy.blocks.cascade(features, unit * th.randn(256, 1, generator=generator), [0.0] * 3)
        model.descend(model.block_loss, policy.block_optimizer, batch, noise, chain)
    start = unit * th.linspace(0.001, 0.999, 999).sub(0.5).mul(2).erfinv().mul(math.sqrt(2)).unsqueeze(1)  # quantiles
    with th.no_grad():
        chain = policy.blocks.cascade(th.zeros(999, 1), start, [0.0] * 3)
    expected = (0.0, 1.0)
    for ends in (chain.starts + chain.moved) / unit:
        expected = jko(*expected, mu, kappa, h, beta)
        assert (ends.mean().item(), ends.std().item()) == pytest.approx(expected, abs=0.02)


def test_04_identity_at_start() -> None:
    """10.2.4: blocks that have not learned do nothing, to the last bit, and their loss is the energy."""
    model = make_model(action_dim=3)
    policy = model.policy
    observations, z = th.randn(32, OBS_DIM), th.randn(32, 3)
    assert th.equal(policy.act_cascade(observations, z), policy.act_base(observations, z))
    batch, noise = random_batch(Variant(action_dim=3, n_blocks=4), seed=0)
    batch, noise = each_column(batch, th.Tensor.float), SWFPNoise(*(part.float() for part in noise))
    with th.no_grad():
        chain = policy.chain(batch.observations, noise.z)
    assert chain.moved.abs().max() == 0
    loss, metrics = model.block_loss(batch, noise, chain)
    q = policy.q_values(policy.critic, batch.observations, chain.actions).mean()
    assert loss.item() == pytest.approx(-4 * q.item() / policy.energy_scale.item(), rel=1e-5)
    assert metrics["displacement"] == 0
    assert metrics["log_det"] == 0


def test_06_heat_adds_up() -> None:
    """Behind blocks that do nothing, the variance has grown by ``2 beta h`` each."""
    model = make_model(heat=True, entropy_coef=0.02, n_blocks=3)
    eta = th.tensor([2.0, 4.0, 8.0])
    model.policy.log_eta.copy_(eta.log())
    z = th.randn(100_000, 4, generator=th.Generator().manual_seed(0))
    with th.no_grad():
        chain = model.policy.chain(th.zeros(100_000, OBS_DIM), z)
    grown = (chain.actions - chain.starts[0]).var().item()
    assert grown == pytest.approx((0.02 / eta).sum().item(), rel=0.02)
    assert model.policy.noise_dim == 4
    assert model.policy.with_sampler("base").noise_dim == 1


@pytest.mark.slow
@pytest.mark.parametrize("slope", [1.0, pytest.param(1000.0, marks=pytest.mark.nightly)])
def test_08_trust_region(slope: float) -> None:
    """10.2.8: however steep the energy, blocks move by the radius, and by the same weights."""
    model = known(lambda a: slope * a.sum(dim=-1), action_dim=2, learning_rate=1e-3, box_coef=0.0, entropy_coef=0.0)
    policy = model.policy
    batch = nothing_to_see(256, 2)
    start = 0.2 * th.randn(256, 2, generator=th.Generator().manual_seed(0))
    for _ in range(400):
        noise = model.draw_noise(256)
        with th.no_grad():
            chain = policy.blocks.cascade(th.zeros(256, 1), start, [0.0] * 4)
            model.measure_energy(batch, noise, chain.actions)
        model.descend(model.block_loss, policy.block_optimizer, batch, noise, chain)
        model.adapt_eta(chain.moved.square().mean(dim=(1, 2)))
    with th.no_grad():
        moved = policy.blocks.cascade(th.zeros(256, 1), start, [0.0] * 4).moved
    assert moved.square().mean(dim=(1, 2)).sqrt().tolist() == pytest.approx([0.05] * 4, rel=0.06)
    # |grad Q| / (2 delta sqrt(d) c), and c is 0.2 |grad Q| where actions are not clipped
    assert policy.energy_scale.item() / slope == pytest.approx(0.2 * math.sqrt(2), rel=0.1)
    assert policy.log_eta.exp().mean().item() == pytest.approx(1 / (2 * 0.05 * 0.2 * math.sqrt(2)), rel=0.15)


def test_flat_energy_makes_plain_steps() -> None:
    """4.5: where nothing pushes, ``eta`` comes down to ``1 / (2 h_max)`` and stays; where all does, it ends at 10,000."""
    model = make_model(h_max=0.2, n_blocks=2)
    for _ in range(2_000):
        model.adapt_eta(th.tensor([0.0, 1e6]))
    assert model.policy.log_eta.exp().tolist() == pytest.approx([2.5, 1e4], rel=1e-4)


def test_09_no_gradient_leaks() -> None:
    """10.2.9: the loss of the blocks reaches no other network, and that of each block no other block."""
    variant = Variant()
    model = variant.model()
    batch, noise = random_batch(variant, seed=0)
    with th.no_grad():
        chain = model.policy.chain(batch.observations, noise.z)
    model.block_loss(batch, noise, chain)[0].backward()
    reached = {name.split(".")[0] for name, p in model.policy.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached == {"blocks"}
    before = [weight.grad.clone() for weight in model.policy.blocks.weights]
    with th.no_grad():  # another second block: the gradients of the others stay
        for weight in model.policy.blocks.weights:
            weight[1] += 0.1
    model.policy.zero_grad()
    model.block_loss(batch, noise, chain)[0].backward()
    for old, weight in zip(before, model.policy.blocks.weights, strict=True):
        assert th.equal(old[[0, 2]], weight.grad[[0, 2]])
        assert not th.equal(old[1], weight.grad[1])


def random_blocks(scale: float, dim: int = 3) -> tuple[Blocks, th.Tensor, th.Tensor]:
    generator = th.Generator().manual_seed(0)
    own = Blocks(2, 2, dim, [8, 8]).double()
    with th.no_grad():
        for weight in own.weights:
            weight.copy_(th.randn(weight.shape, generator=generator, dtype=th.float64) * 0.6)
        own.weights[-1].mul_(scale)
    context = own.context(th.randn(5, 2, generator=generator, dtype=th.float64))
    return own, context, th.randn(2, 5, dim, generator=generator, dtype=th.float64)


def test_10_estimate_of_the_determinant(monkeypatch: pytest.MonkeyPatch) -> None:
    """10.2.10: its mean over all signs errs by the third order of the Jacobian: half the Jacobian, an eighth of the error."""
    errors = []
    for scale in (0.04, 0.02, 0.01):
        own, context, actions = random_blocks(scale)
        exact = log_det(own, context, actions, actions[0])
        with monkeypatch.context() as patch:
            patch.setattr(blocks, "EXACT_DIM", 0)
            signs = [th.tensor(e, dtype=th.float64).expand(5, 3) for e in itertools.product([-1.0, 1.0], repeat=3)]
            estimate = th.stack([log_det(own, context, actions, e) for e in signs]).mean(dim=0)
        errors.append((exact - estimate).abs().mean().item())
    assert errors[0] / errors[1] == pytest.approx(8, rel=0.2)
    assert errors[1] / errors[2] == pytest.approx(8, rel=0.1)


@pytest.mark.parametrize(("offset", "factor"), [(1000.0, 1.0), (0.0, 10.0)])
def test_12_offset_and_scale_of_the_values(offset: float, factor: float) -> None:
    """10.2.12: neither a constant nor a factor changes what blocks learn."""

    def after(offset: float, factor: float) -> list[th.Tensor]:
        model = known(lambda a: factor * (a[..., 0] - a[..., 1] ** 2) + offset, action_dim=2, bc_steps=0, critic_steps=0)
        model.policy.double()
        batch = nothing_to_see(32, 2)
        batch = each_column(batch, th.Tensor.double)
        for _ in range(5):
            noise = SWFPNoise(*(part.double() for part in model.draw_noise(32)))
            model.update(batch, noise)
        return [parameter.detach() for parameter in model.policy.blocks.parameters()]

    for plain, changed in zip(after(0.0, 1.0), after(offset, factor), strict=True):
        th.testing.assert_close(plain, changed, rtol=1e-7, atol=1e-9)


@pytest.mark.nightly
@pytest.mark.parametrize("seed", [0, 1])
def test_07_bandit_to_its_gibbs_distribution(seed: int) -> None:
    """
    10.2.7: a clone of N(0, 0.2^2) walks to the best action within its trust region, absorbed again and again, and ends as
    wide as ``exp(Q / (beta c))`` is.
    """
    goal = th.tensor([0.6, -0.4])
    model = known(
        lambda a: -100 - 5 * (a - goal).square().sum(dim=-1),
        action_dim=2,
        learning_rate=1e-3,
        tau=0.02,
        bc_steps=1_500,
        critic_steps=0,
        absorb_interval=600,
        absorb_steps=300,
        seed=seed,
        policy_kwargs={"net_arch": [64, 64], "block_arch": [32, 32]},
    )
    model.dataset_name = "data"
    policy, generator, far = model.policy, th.Generator().manual_seed(seed), []
    batch = nothing_to_see(256, 2)
    for _ in range(1_500):
        actions = 0.2 * th.randn(256, 2, generator=generator)
        model.update(batch._replace(actions=actions), model.draw_noise(256))
    clone = policy.act_base(th.zeros(4_000, 1), th.randn(4_000, 2, generator=generator))
    assert clone.mean(dim=0).tolist() == pytest.approx([0, 0], abs=0.03)
    for step in range(3_600):
        metrics = model.update(batch, model.draw_noise(256))
        if 400 <= step < 600:
            far.append(metrics["displacement"].item())
    assert np.mean(far) == pytest.approx(0.05, rel=0.04)
    with th.no_grad():
        actions = policy.act_cascade(th.zeros(4_000, 1), th.randn(4_000, 2, generator=generator))
    assert actions.mean(dim=0).tolist() == pytest.approx(goal.tolist(), abs=0.02)
    gibbs = math.sqrt(0.02 * policy.energy_scale.item() / 10)
    assert actions.std(dim=0).tolist() == pytest.approx([gibbs, gibbs], rel=0.25)


# Starting from what another algorithm has cloned.


def small(cls: Any, **kwargs: Any) -> Any:
    return cls("FlowPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [16, 16]}, device="cpu", seed=0, **kwargs)


SOURCES = {
    "FQL": lambda: small(FQL, flow_steps=3),
    "FQL in chunks": lambda: small(FQL, flow_steps=5, horizon_length=3),
    "GFP": lambda: small(GFP, flow_steps=3),
    "QAM": lambda: small(QAM, flow_steps=3),
    "QAM-EDIT": lambda: small(QAM, flow_steps=3, edit_scale=0.2),
    "SWFP": lambda: small(SWFP, flow_steps=3),
}


@pytest.mark.parametrize("from_file", [False, True], ids=["model", "file"])
@pytest.mark.parametrize("make", SOURCES.values(), ids=SOURCES)
def test_from_pretrained(make: Any, from_file: bool, tmp_path: Path) -> None:
    """Before it is trained, the cascade is the monolithic flow, to the last bit."""
    source = make()
    with th.no_grad():
        for parameter in source.policy.parameters():
            parameter.add_(0.1 * th.randn_like(parameter))
    source.policy.normalizer.set_statistics("", th.tensor([0.1, 0.2, 0.3]), th.tensor([1.0, 2.0, 3.0]))
    if from_file:
        source.save(tmp_path / "model")
        model = SWFP.from_pretrained(tmp_path / "model", "Pendulum-v1", device="cpu")
    else:
        model = SWFP.from_pretrained(source, device="cpu")
    observations = th.as_tensor(np.stack([pendulum().observation_space.sample() for _ in range(8)]))
    z = th.randn(8, model.policy.action_dim)
    sampler = {"SWFP": "base", "GFP": "vabc"}.get(type(source).__name__, "bc_flow")
    assert th.equal(model.policy.act(observations, z), source.policy.with_sampler(sampler).act(observations, z))
    assert model.stage == "evaluate"


def test_from_pretrained_improves_online(monkeypatch: pytest.MonkeyPatch) -> None:
    """It acts by the clone from its first step on, then improves it; the clone itself stays as long as nothing is absorbed."""
    source = small(FQL, flow_steps=3, learning_starts=10)
    source.learn(20)
    model = SWFP.from_pretrained(source, learning_starts=20, critic_steps=10, policy_kwargs={"block_arch": [8]}, device="cpu")
    before = [parameter.clone() for parameter in model.policy.base.parameters()]
    monkeypatch.setattr(model.action_space, "sample", lambda: pytest.fail("a random action, in place of the clone's"))
    model.learn(60)
    assert model.n_critic_updates == 40
    assert model.n_block_updates == 30
    assert all(th.equal(a, b) for a, b in zip(before, model.policy.base.parameters(), strict=True))
    assert any(weight.abs().max() > 0 for weight in [model.policy.blocks.weights[-1]])


def test_from_pretrained_needs_a_flow_and_its_spaces(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no BC flow.*FQL, GFP, QAM"):
        SWFP.from_pretrained(small(FPMD))
    source = small(FQL)
    source.save(tmp_path / "model")
    with pytest.raises(ValueError, match="no environment"):
        SWFP.from_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="The `observation_space` of the BC flow"):
        SWFP.from_pretrained(source, box_env(2, 1))
    with pytest.raises(ValueError, match="does not fit these `policy_kwargs`"):
        SWFP.from_pretrained(source, policy_kwargs={"net_arch": [8]})
    with pytest.raises(FileNotFoundError):
        SWFP.from_pretrained(tmp_path / "nothing", "Pendulum-v1")
    small(FQL, learning_rate=lambda left: 1e-3 * left).save(tmp_path / "pickled")
    with pytest.raises(ValueError, match=r"Then pass the model, not its path: `SWFP.from_pretrained\(FQL.load\(path, ...\)"):
        SWFP.from_pretrained(tmp_path / "pickled", "Pendulum-v1")


@pytest.mark.slow
def test_stages_of_learning() -> None:
    """Offline: clone, then evaluate until the phase ends; online: improve. All offline: improve when the critics are ready."""
    rng = np.random.default_rng(0)
    data = {
        "observations": rng.normal(size=(50, 3)).astype(np.float32),
        "actions": rng.uniform(-2, 2, (50, 1)).astype(np.float32),
        "rewards": rng.normal(size=50).astype(np.float32),
        "terminations": np.zeros(50, bool),
        "truncations": np.arange(50) == 49,
    }
    common = {"dataset": data, "bc_steps": 10, "critic_steps": 5, "batch_size": 8, "learning_starts": 5}
    model = small(SWFP, **common, offline_steps=30)
    model.learn(60)
    assert (model.n_clone_updates, model.n_critic_updates, model.n_block_updates) == (10, 20 + 25, 25)
    assert small(SWFP).stage == "evaluate", "online there is nothing to clone"
    model = small(SWFP, **common)
    model.learn(30)
    assert (model.n_clone_updates, model.n_critic_updates, model.n_block_updates) == (10, 20, 15)


# What SWFP is compared with.


class WholeReference(Reference):
    """The same with gradients through the whole flow, instead of blocks."""

    def __init__(self, model: WholeFlow, variant: Variant) -> None:
        super().__init__(model, variant)
        self.log_eta = [math.log(100.0)]

    def chain(self, s: th.Tensor, z: th.Tensor) -> list[th.Tensor]:
        """The policy acts by the flow that is fine-tuned."""
        return [self.base_actions("bc_flow", s, z).detach()]

    def whole_loss(self, batch: Batch, noise: SWFPNoise) -> tuple[th.Tensor, float]:
        """The loss, and the mean square of a coordinate's displacement."""
        s = batch.observations
        moved = self.base_actions("bc_flow", s, noise.z) - self.base_actions("base", s, noise.z).detach()
        b = self.base_actions("bc_flow", s, noise.z)
        terms = -self.energy_value(s, b) / self.scale + math.exp(self.log_eta[0]) * (moved**2).sum(dim=1)
        terms = terms + self.variant.box_coef * ((b - th.clip(b, -1, 1)) ** 2).sum(dim=1)
        return terms.mean(), (moved**2).mean().item()

    def update(self, batch: Batch, noise: SWFPNoise) -> dict[str, float]:
        v, s = self.variant, batch.observations
        if self.n_clone < v.bc_steps or self.n_critic < v.critic_steps:
            return super().update(batch, noise)
        critic_loss = self.critic_loss(batch, noise)
        self.adam("critic", critic_loss)
        self.follow("critic_target")
        middle = th.clip(self.base_actions("base", s, noise.z).detach(), -1, 1)
        around = th.stack([self.energy_value(s, middle + 0.2 * noise.around[j]).detach() for j in range(8)])
        spread = th.sqrt(((around - around.mean(dim=0)) ** 2).sum(dim=0) / 7).mean().item()
        self.scale_sum = 0.99 * self.scale_sum + 0.01 * spread
        self.scale_weight = 0.99 * self.scale_weight + 0.01
        loss, square = self.whole_loss(batch, noise)
        self.adam("bc_flow", loss, v.max_grad_norm)
        radius, h_max = v.n_blocks * v.radius, v.n_blocks * v.h_max
        self.log_eta[0] += 0.02 * (math.log(square + 1e-12) - 2 * math.log(radius))
        self.log_eta[0] = min(max(self.log_eta[0], math.log(1 / (2 * h_max))), math.log(1e4))
        self.n_block += 1
        if self.n_block == v.absorb_interval:
            self.absorb()
        return {"critic_loss": critic_loss.item(), "whole_loss": loss.item()}

    def absorb(self) -> None:
        self.n_block, self.log_eta = 0, [math.log(100.0)]
        with th.no_grad():
            for name, parameter in self.parameters.items():
                if name.startswith("base."):
                    parameter.copy_(self.parameters[name.replace("base.", "bc_flow.", 1)])


WHOLE_VARIANTS = {
    "far": Variant(h_max=2.0, radius=0.3, learning_rate=0.01, action_dim=3, q_agg="min", n_critics=3),
    "within a narrow box, not clipped": Variant(max_grad_norm=None, box_coef=50.0, n_blocks=1, learning_rate=0.01),
    "absorbing": Variant(absorb_interval=3, absorb_steps=1, horizon_length=2, valid=0.6, learning_rate=0.01),
}


@pytest.mark.parametrize("variant", WHOLE_VARIANTS.values(), ids=WHOLE_VARIANTS)
def test_updates_of_the_whole_flow(variant: Variant) -> None:
    """Every parameter and statistic after updates in all three stages, with actions outside of the box."""
    model = variant.model(WholeFlow)
    reference = WholeReference(model, variant)
    for seed in range(10):
        batch, noise = random_batch(variant, seed)
        expected, metrics = reference.update(batch, noise), model.update(batch, noise)
        for name, value in expected.items():
            assert metrics[name].item() == pytest.approx(value, rel=1e-9), (seed, name)
    with th.no_grad():
        assert (reference.base_actions("bc_flow", batch.observations, noise.z).abs() > 1).any()
    assert model.n_block_updates == reference.n_block == (0 if variant.absorb_interval else 6)
    for name, parameter in model.policy.named_parameters():
        if not name.startswith("blocks."):
            th.testing.assert_close(parameter.detach(), reference.parameters[name].detach(), rtol=1e-8, atol=1e-10, msg=name)
    th.testing.assert_close(model.policy.log_eta, th.tensor(reference.log_eta, dtype=th.float64))


class KnownEnergyOfWholeFlow(WholeFlowPolicy):
    energy: Any = None
    energies = KnownEnergy.energies


@pytest.mark.nightly
def test_whole_flow_moves_within_its_trust_region() -> None:
    """As far as all blocks together from the base, which follows every ``absorb_interval`` updates."""
    env = box_env(1, 2)
    model = WholeFlow(
        KnownEnergyOfWholeFlow,
        env,
        learning_rate=1e-3,
        flow_steps=3,
        radius=0.02,
        critic_steps=0,
        absorb_interval=500,
        absorb_steps=1,
        policy_kwargs={"net_arch": [32]},
        device="cpu",
        seed=0,
    )
    policy = model.policy
    policy.energy = lambda a: 3 * a.sum(dim=-1)
    with th.no_grad():  # a flow that goes nowhere
        for network in (policy.bc_flow, policy.base):
            network.net.layers[-1].weight.zero_()
    z = 0.1 * th.randn(500, 2, generator=th.Generator().manual_seed(0))
    observations = th.zeros(500, 1)

    moved = [model.update(nothing_to_see(64, 2), model.draw_noise(64))["displacement"].item() for _ in range(499)]
    assert np.mean(moved[-100:]) == pytest.approx(4 * 0.02, rel=0.05)
    assert not th.equal(policy.act_cascade(observations, z), policy.act_base(observations, z))
    model.update(nothing_to_see(64, 2), model.draw_noise(64))
    assert th.equal(policy.act_cascade(observations, z), policy.act_base(observations, z))


def test_whole_flow_starts_as_the_clone_and_learns_online() -> None:
    source = small(FQL, flow_steps=3)
    model = WholeFlow.from_pretrained(source, learning_starts=5, critic_steps=5, device="cpu")
    observations, z = th.randn(8, 3), th.randn(8, 1)
    assert th.equal(model.policy.act(observations, z), source.policy.act_bc_flow(observations, z))
    model.learn(30)
    loss, metrics = model.loss(model.sample_batch(8), model.draw_noise(8))
    assert loss.item() == pytest.approx(sum(metrics[name].item() for name in ("bc_flow_loss", "critic_loss", "whole_loss")))
    assert not th.equal(model.policy.act(observations, z), source.policy.act_bc_flow(observations, z))
    assert th.equal(model.policy.act_base(observations, z), source.policy.act_bc_flow(observations, z))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"radius": 0.0}, "`radius` is 0.0"),
        ({"entropy_coef": -1.0}, "`entropy_coef` is -1.0"),
        ({"n_blocks": 0}, "`n_blocks` is 0"),
        ({"bc_steps": -1}, "`bc_steps` is -1"),
        ({"absorb_interval": 10, "absorb_steps": 20}, "`absorb_steps` is 20"),
        ({"q_agg": "max"}, "'max'"),
        ({"policy_kwargs": {"block_arch": []}}, "`block_arch` is empty"),
        ({"flow_steps": 0}, "`flow_steps` is 0"),
    ],
    ids=str,
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    """The constructor raises an error that names the argument and its value."""
    small: dict[str, Any] = {"policy_kwargs": {"net_arch": [8]}, "device": "cpu"}
    with pytest.raises(ValueError, match=message):
        SWFP("FlowPolicy", pendulum(), **{**small, **arguments})
