"""
GFP against a second implementation: the equations of its specification, written out slowly in float64, and its properties.

``Reference`` shares no code with the package; it is built from ``transcription``. Section numbers are those of the method's
specification, and ``test_01`` to ``test_20`` the properties that it lists at its end.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch as th
from conformance.environments import AnySpaces, pendulum
from gymnasium import spaces
from transcription import (
    BATCH,
    OBS_DIM,
    SEEDS,
    Draw,
    Transcription,
    assert_single_precision,
    box_env,
    nightly_except,
    parameters_of,
    shake,
)

from sb3_flow import FQL, GFP
from sb3_flow.common import networks
from sb3_flow.common.networks import sinusoid
from sb3_flow.common.type_aliases import Batch
from sb3_flow.fql.fql import FQLNoise
from sb3_flow.gfp import GFPPolicy
from sb3_flow.gfp.gfp import Proposals

NETWORKS = ("bc_flow", "actor", "critic", "critic_target")


@pytest.fixture(autouse=True)
def size_of_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors as small as here would take PyTorch's GELU; compare the fast one."""
    monkeypatch.setattr(networks, "SMALL", 0)


def make_model(obs_dim: int = OBS_DIM, action_dim: int = 1, net_arch: tuple[int, ...] = (24, 16), **kwargs: Any) -> GFP:
    env = box_env(obs_dim, action_dim)
    policy_kwargs = {"net_arch": net_arch, **kwargs.pop("policy_kwargs", {})}
    return GFP("FlowPolicy", env, policy_kwargs=policy_kwargs, device="cpu", **{"seed": 0, **kwargs})


def double(model: GFP) -> GFP:
    model.policy.double()
    return model


# The second implementation.


@dataclass
class Variant:
    action_dim: int = 3
    horizon_length: int = 1
    alpha: float = 1.5
    eta: float = 0.4
    guidance_fn: str = "softmax"
    guidance_agg: str = "actor"
    target_agg: str = "actor"
    target_vabc_at_next: bool = False
    q_agg: str = "mean"
    flow_steps: int = 10
    normalize_q_loss: bool = True
    encode_time_dim: int = 64
    n_critics: int = 2
    n_steps: int = 1
    valid: float = 1.0
    gamma: float = 0.99
    tau: float = 0.005
    learning_rate: float = 3e-4

    @property
    def dim(self) -> int:
        """Size of an action, or of a chunk of them."""
        return self.action_dim * self.horizon_length

    def model(self) -> GFP:
        """A model whose parameters are all random, targets as well, and whose actions leave the box now and then."""
        own = ("horizon_length alpha eta guidance_fn guidance_agg target_agg target_vabc_at_next q_agg flow_steps "
               "normalize_q_loss n_steps gamma tau learning_rate").split()  # fmt: skip
        model = make_model(
            action_dim=self.action_dim,
            policy_kwargs={"encode_time_dim": self.encode_time_dim, "n_critics": self.n_critics},
            **{name: getattr(self, name) for name in own},
        )
        shake(model)
        if self.encode_time_dim:  # Many sines and cosines hardly move. Added up, they would carry all actions out of the box.
            with th.no_grad():
                model.policy.bc_flow.net.layers[0].weight[:, -self.encode_time_dim :] *= 4 / self.encode_time_dim
        return model


VARIANTS = {
    "default": Variant(),
    "min": Variant(guidance_agg="min", q_agg="min", n_critics=3, eta=0.2),
    "target mean": Variant(target_agg="mean", guidance_agg="min"),
    "target mean at next": Variant(target_agg="mean", target_vabc_at_next=True, q_agg="min"),
    "target min": Variant(target_agg="min", action_dim=1),
    "target max": Variant(target_agg="max", target_vabc_at_next=True, flow_steps=3),
    "target vabc": Variant(target_agg="vabc", q_agg="min", guidance_agg="min"),
    "target vabc at next": Variant(target_agg="vabc", target_vabc_at_next=True, n_steps=3, gamma=0.9),
    "advantage": Variant(guidance_fn="advantage", eta=0.8, guidance_agg="min"),
    "no guidance": Variant(eta=0.0, encode_time_dim=0),
    "values as they are": Variant(normalize_q_loss=False, eta=1.0, q_agg="min"),
    "chunks": Variant(horizon_length=3, action_dim=2, valid=0.6, gamma=0.9, target_agg="mean", n_critics=3),
    "time itself": Variant(encode_time_dim=0, flow_steps=4, tau=0.3, learning_rate=0.02),
    "sharp": Variant(eta=1e-3, encode_time_dim=8),
}
#: Those of which parameters are compared without `--all`, too; losses and gradients are for all.
OFTEN = ("default", "min", "target vabc at next", "chunks", "time itself")


class Reference(Transcription):
    """Sections 3 to 5, literally."""

    owners: ClassVar[dict[str, str]] = {"critic": "critic_loss", "bc_flow": "vabc_loss", "actor": "actor_loss"}
    variant: Variant

    def embedded(self, t: th.Tensor) -> th.Tensor:
        """3.3: a sinusoid of the time, or the time itself."""
        half = self.variant.encode_time_dim // 2
        if half == 0:
            return t
        frequencies = [math.exp(-k * math.log(10000) / (half - 1)) for k in range(half)]
        return th.cat([th.sin(t * f) for f in frequencies] + [th.cos(t * f) for f in frequencies], dim=1)

    def one_step(self, s: th.Tensor, z: th.Tensor) -> th.Tensor:
        return self.mlp("actor", s, z)

    def flow(self, s: th.Tensor, z: th.Tensor) -> th.Tensor:
        """4.1"""
        end = self.euler(lambda x, t: self.mlp("bc_flow", s, x, self.embedded(t)), z, self.variant.flow_steps)
        return th.clip(end, -1, 1)

    def value(self, network: str, s: th.Tensor, a: th.Tensor) -> th.Tensor:
        """agg[Q(s, a)]"""
        qs = [self.q(network, k, s, a) for k in range(self.variant.n_critics)]
        if self.variant.q_agg == "mean":
            return sum(qs) / len(qs)
        lowest = qs[0]
        for q in qs[1:]:
            lowest = th.where(q < lowest, q, lowest)
        return lowest

    def critic_loss(self, batch: Batch, noise: FQLNoise) -> th.Tensor:
        """4.2; a chunk that reaches past the end of its trajectory counts nothing."""
        next_s, teachers_s = batch.next_observations, batch.observations
        if self.variant.target_vabc_at_next:
            teachers_s = next_s
        actor = self.value("critic_target", next_s, th.clip(self.one_step(next_s, noise.next_noise), -1, 1))
        teacher = self.value("critic_target", next_s, self.flow(teachers_s, noise.next_noise))
        total = th.zeros((), dtype=th.float64)
        for b in range(BATCH):
            next_v = {
                "actor": actor[b],
                "mean": 0.5 * actor[b] + 0.5 * teacher[b],
                "min": min(actor[b], teacher[b]),
                "max": max(actor[b], teacher[b]),
                "vabc": teacher[b],
            }[self.variant.target_agg]
            y = (batch.rewards[b] + batch.discounts[b] * batch.masks[b] * next_v).detach()
            for k in range(self.variant.n_critics):
                q = self.q("critic", k, batch.observations[b : b + 1], batch.actions[b : b + 1])
                total = total + batch.valids[b] * (q.squeeze() - y) ** 2
        return total / (BATCH * self.variant.n_critics)

    def scale(self, q: th.Tensor) -> float:
        """4.3: lambda."""
        return BATCH / sum(abs(number) for number in q.tolist()) if self.variant.normalize_q_loss else 1.0

    def guidance(self, batch: Batch, noise: FQLNoise) -> list[float]:
        """4.4, with the exponentials of the paper."""
        s, eta = batch.observations, self.variant.eta
        if eta == 0:
            return [1.0] * BATCH
        a_actor, a_teacher = th.clip(self.one_step(s, noise.z), -1, 1), self.flow(s, noise.z)
        q_data, q_actor = self.value("critic_target", s, batch.actions), self.value("critic_target", s, a_actor)
        q_teacher = self.value("critic_target", s, a_teacher)
        scale = self.scale(self.value("critic", s, a_actor))
        weights = []
        for of_data, of_actor, of_teacher in zip(q_data.tolist(), q_actor.tolist(), q_teacher.tolist(), strict=True):
            reference = min(of_actor, of_teacher) if self.variant.guidance_agg == "min" else of_actor
            if self.variant.guidance_fn == "advantage":
                weights.append(math.exp(scale * (of_data - reference) / eta))
            else:
                top = max(of_data, reference)  # taken out of both exponentials
                data, other = (math.exp(scale * (q - top) / eta) for q in (of_data, reference))
                weights.append(data / (data + other))
        return weights

    def vabc_loss(self, batch: Batch, noise: FQLNoise) -> th.Tensor:
        """4.5; with the same chunks left out."""
        x_t = (1 - noise.t) * noise.x0 + noise.t * batch.actions
        v = self.mlp("bc_flow", batch.observations, x_t, self.embedded(noise.t))
        total = th.zeros((), dtype=th.float64)
        for b, weight in enumerate(self.guidance(batch, noise)):
            error = ((v[b] - (batch.actions[b] - noise.x0[b])) ** 2).sum() / self.variant.dim
            total = total + batch.valids[b] * weight * error
        return total / BATCH

    def distill_loss(self, batch: Batch, noise: FQLNoise) -> th.Tensor:
        """4.3"""
        error = self.one_step(batch.observations, noise.z) - self.flow(batch.observations, noise.z).detach()
        return (error**2).sum() / (BATCH * self.variant.dim)

    def q_loss(self, batch: Batch, noise: FQLNoise) -> th.Tensor:
        """4.3; the critic's own gradient is dropped in ``gradients``."""
        q = self.value("critic", batch.observations, th.clip(self.one_step(batch.observations, noise.z), -1, 1))
        return -self.scale(q) * q.sum() / BATCH

    def losses(self, batch: Batch, noise: FQLNoise) -> dict[str, th.Tensor]:
        distill_loss, q_loss = self.distill_loss(batch, noise), self.q_loss(batch, noise)
        critic_loss, vabc_loss = self.critic_loss(batch, noise), self.vabc_loss(batch, noise)
        actor_loss = q_loss + self.variant.alpha * distill_loss
        guidance = th.tensor(self.guidance(batch, noise), dtype=th.float64)
        return {
            "critic_loss": critic_loss,
            "vabc_loss": vabc_loss,
            "distill_loss": distill_loss,
            "q_loss": q_loss,
            "actor_loss": actor_loss,
            "guidance": guidance.mean(),
            "guidance_above_0.01": (guidance > 0.01).double().mean(),
            "guidance_above_0.5": (guidance > 0.5).double().mean(),
            "loss": critic_loss + actor_loss + vabc_loss,
        }


def random_batch(variant: Variant, seed: int, dtype: th.dtype = th.float64) -> tuple[Batch, FQLNoise]:
    draw = Draw(seed, dtype)
    batch = draw.batch(variant.dim, variant.gamma, variant.n_steps, variant.valid)
    next_noise, x0, z = (draw.normal(BATCH, variant.dim) for _ in range(3))
    return batch, FQLNoise(next_noise=next_noise, x0=x0, t=draw.uniform(BATCH, 1), z=z)


def model_losses(model: GFP, batch: Batch, noise: FQLNoise) -> dict[str, th.Tensor]:
    loss, metrics = model.loss(batch, noise)
    return metrics | {"loss": loss}


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_losses_and_gradients(variant: Variant) -> None:
    """4.1 to 4.6: each loss, and its gradient to every parameter, in float64."""
    model = double(variant.model())
    reference = Reference(model, variant)
    batch, noise = random_batch(variant, seed=0)
    expected, found = reference.losses(batch, noise), model_losses(model, batch, noise)
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(value.item(), rel=1e-12, abs=1e-12), name

    # The batch must show what clipping and guidance do: some actions outside of the box, some weights far from others.
    for obs, z in ((batch.observations, noise.z), (batch.next_observations, noise.next_noise)):
        actions = reference.one_step(obs, z)
        assert 0.05 < (actions.abs() > 1).double().mean().item() < 0.95
    assert 0.05 < (reference.flow(batch.observations, noise.z).abs() == 1).double().mean().item() < 0.95
    assert variant.eta == 0 or np.std(reference.guidance(batch, noise)) > 0.1
    assert (batch.valids.mean().item() < 1) == (variant.valid < 1)

    found["loss"].backward()
    reference.assert_gradients(model, expected)


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_losses_in_single_precision(variant: Variant) -> None:
    """The same losses in float32, as the package computes them; dividing by eta magnifies what is rounded."""
    model = variant.model()
    expected = Reference(model, variant).losses(*random_batch(variant, seed=0))
    found = model_losses(model, *random_batch(variant, seed=0, dtype=th.float32))
    tolerance = 3e-5 if variant.eta > 0.1 or variant.eta == 0 else 1e-3
    assert_single_precision(found, expected, rel=tolerance)


@pytest.mark.parametrize("variant", nightly_except(OFTEN, VARIANTS))
def test_parameters_after_updates(variant: Variant) -> None:
    """4.6: all parameters after five updates, those of the target critics too, in float64."""
    model = double(variant.model())
    reference = Reference(model, variant)
    start = parameters_of(model)
    for seed in range(5):
        batch, noise = random_batch(variant, seed)
        model.update(batch, noise)
        reference.update(batch, noise)
    reference.assert_parameters(model, start)


@pytest.mark.parametrize("name", ["default", "min", "chunks"])
def test_losses_one_by_one(name: str) -> None:
    """``bc_flow_loss`` and ``actor_loss`` called alone are the parts of ``loss``, to the bit, and add up to it."""
    variant = VARIANTS[name]
    model = double(variant.model())
    batch, noise = random_batch(variant, seed=0)
    loss, metrics = model.loss(batch, noise)
    parts = [part(batch, noise) for part in (model.critic_loss, model.bc_flow_loss, model.actor_loss)]
    for (part, its_metrics), total in zip(parts, ("critic_loss", "vabc_loss", "actor_loss"), strict=True):
        assert part.item() == metrics[total].item()
        for metric, value in its_metrics.items():
            assert value.item() == metrics[metric].item(), metric
    assert {metric for _, its_metrics in parts for metric in its_metrics} == set(metrics)
    assert loss.item() == pytest.approx(sum(part.item() for part, _ in parts), rel=1e-14)


def test_update_reports_the_losses() -> None:
    """The metrics are the losses at the parameters before the step."""
    variant = VARIANTS["default"]
    model = double(variant.model())
    batch, noise = random_batch(variant, seed=0)
    expected = Reference(model, variant).losses(batch, noise)
    metrics = model.update(batch, noise)
    for name in expected.keys() - {"loss"}:
        assert metrics[name].item() == pytest.approx(expected[name].item(), rel=1e-12)


# The twenty properties of the specification's last section.


class Table:
    """
    Values as they are wanted: the target critics say ``q_data``, ``q_actor`` and ``q_teacher`` of the three actions of each
    row, which are the unit vectors. The two critics differ by 0.2, so that their minimum is 0.1 below.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, q_data: Any, q_actor: Any, q_teacher: Any = 0.0) -> None:
        columns = [th.as_tensor(q, dtype=th.float64) for q in (q_data, q_actor, q_teacher)]
        self.values = th.stack(th.broadcast_tensors(*columns), dim=1)
        self.monkeypatch = monkeypatch
        self.n = len(self.values)
        self.actions = [th.eye(3, dtype=th.float64)[i].expand(self.n, 3) for i in range(3)]

    def guidance(self, scale: float = 1.0, dtype: th.dtype = th.float64, **kwargs: Any) -> th.Tensor:
        model = make_model(action_dim=3, net_arch=(4,), **kwargs)
        values = self.values.to(dtype)

        def q_values(network: Any, observations: th.Tensor, actions: th.Tensor) -> th.Tensor:
            assert network is model.policy.critic_target  # pitfall 3
            q = (values * actions).sum(dim=1)
            return th.stack([q - 0.1, q + 0.1]) if dtype == th.float64 else th.stack([q, q])

        self.monkeypatch.setattr(model.policy, "q_values", q_values)
        ones, obs = th.ones(self.n, dtype=dtype), th.zeros(self.n, OBS_DIM, dtype=dtype)
        data, actor, teacher = (actions.to(dtype) for actions in self.actions)
        batch = Batch(obs, data, ones, ones, ones, obs, ones)
        # The actor's output leaves the box where nothing else does: it is clipped before it is valued (pitfall 9).
        return model.guidance(batch, Proposals(2 * actor, teacher, ones, th.tensor(scale, dtype=dtype)))


@pytest.mark.parametrize("q_agg", ["mean", "min"])
@pytest.mark.parametrize("eta", [1e-2, 0.1, 1.0, 10.0])
def test_01_guidance_is_a_softmax_over_two(monkeypatch: pytest.MonkeyPatch, eta: float, q_agg: str) -> None:
    q_data, q_actor = th.randn(2, 1000, dtype=th.float64, generator=th.Generator().manual_seed(0)) / 3
    scale = 2.5
    found = Table(monkeypatch, q_data, q_actor, -5.0).guidance(scale, eta=eta, q_agg=q_agg)
    above = th.exp(q_data / scale / eta)
    expected = above / (above + th.exp(q_actor / scale / eta))
    th.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    assert expected.min().item() < 0.49 and expected.max().item() > 0.51


@pytest.mark.parametrize("guidance_agg", ["actor", "min"])
def test_02_guidance_is_monotone(monkeypatch: pytest.MonkeyPatch, guidance_agg: str) -> None:
    """Between 0 and 1; a half for an action as good as the reference; up with the data's value, down with the actor's."""
    generator = th.Generator().manual_seed(0)
    q, low, high = th.randn(3, 500, dtype=th.float64, generator=generator)
    low, high = th.minimum(low, high), th.maximum(low, high) + 1e-3
    options = dict(eta=0.5, guidance_agg=guidance_agg)

    def guidance(q_data: th.Tensor, q_actor: th.Tensor) -> th.Tensor:
        return Table(monkeypatch, q_data, q_actor, 50.0).guidance(**options)

    found = guidance(q, low)
    assert found.min().item() > 0 and found.max().item() < 1
    th.testing.assert_close(guidance(q, q), th.full_like(q, 0.5), rtol=0, atol=1e-14)
    assert (guidance(high, q) > guidance(low, q)).all()
    assert (guidance(q, high) < guidance(q, low)).all()


def test_03_guidance_does_not_see_a_constant(monkeypatch: pytest.MonkeyPatch) -> None:
    q_data, q_actor, q_teacher = th.randn(3, 200, dtype=th.float64, generator=th.Generator().manual_seed(0))
    options = dict(scale=1.7, eta=0.3, guidance_agg="min", q_agg="min")
    found = Table(monkeypatch, q_data, q_actor, q_teacher).guidance(**options)
    shifted = Table(monkeypatch, q_data + 5, q_actor + 5, q_teacher + 5).guidance(**options)
    th.testing.assert_close(shifted, found, rtol=0, atol=1e-12)


@pytest.mark.parametrize("factor", [1e-3, 300.0])
def test_03_guidance_does_not_see_the_scale_of_values(factor: float) -> None:
    """Nor does the actor's loss: all critics times c leave g and lambda q as they are."""
    variant = VARIANTS["min"]
    model = double(variant.model())
    batch, noise = random_batch(variant, 0)
    proposals = model.propose(batch, noise)
    guidance, loss = model.guidance(batch, proposals), model.actor_loss(batch, noise, proposals)[0]
    assert 0.1 < guidance.std().item() and 0.1 < abs(loss.item())
    with th.no_grad():
        for network in (model.policy.critic, model.policy.critic_target):
            network.net.weights[-1].mul_(factor)
            network.net.biases[-1].mul_(factor)
    scaled = model.propose(batch, noise)
    th.testing.assert_close(scaled.q, factor * proposals.q, rtol=1e-10, atol=0)
    th.testing.assert_close(model.guidance(batch, scaled), guidance, rtol=0, atol=1e-10)
    assert model.actor_loss(batch, noise, scaled)[0].item() == pytest.approx(loss.item(), rel=1e-10)


def test_04_sharp_guidance_is_finite_and_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    With eta = 1e-6 and values of a thousand. In single precision what is divided by eta before it is subtracted has lost
    its digits: numbers of 1e6 lie 0.06 apart.
    """
    eta, scale = 1e-6, 1000.0
    generator = th.Generator().manual_seed(0)
    q_actor = (1000 * th.randn(400, generator=generator)).sign() * 1000
    steps = th.randint(-60, 61, (400,), generator=generator)
    q_data = q_actor + steps * 2.0**-14  # numbers that single precision has
    found = Table(monkeypatch, q_data, q_actor).guidance(scale, th.float32, eta=eta)
    exact = (steps.double() * 2.0**-14 / scale / eta).sigmoid()
    th.testing.assert_close(found.double(), exact, rtol=1e-4, atol=1e-6)
    far = Table(monkeypatch, q_data, -q_actor).guidance(scale, th.float32, eta=eta)
    assert set(far.tolist()) == {0.0, 1.0}


def test_04_sharp_guidance_gives_a_finite_loss() -> None:
    model = VARIANTS["default"].model()
    model.eta = 1e-6
    with th.no_grad():
        for network in (model.policy.critic, model.policy.critic_target):
            network.net.weights[-1].mul_(1000.0)
    batch, noise = random_batch(VARIANTS["default"], 0, th.float32)
    assert model.propose(batch, noise).q.abs().max().item() > 1000
    loss, _ = model.loss(batch, noise)
    loss.backward()
    assert math.isfinite(loss.item())
    assert all(bool(p.grad.isfinite().all()) for p in model.policy.parameters() if p.grad is not None)


def test_05_without_guidance_the_teacher_is_that_of_fql() -> None:
    """eta = 0 is a switch, to the bit; eta to infinity is half of it."""
    variant = VARIANTS["chunks"]
    model = double(variant.model())
    batch, noise = random_batch(variant, 0)
    plain = FQL.bc_flow_loss(model, batch, noise)[0]
    for guidance_fn in ("softmax", "advantage"):
        model.eta, model.guidance_fn = 0.0, guidance_fn
        assert model.bc_flow_loss(batch, noise)[0].item() == plain.item()
    model.eta, model.guidance_fn = 1e12, "softmax"
    assert model.bc_flow_loss(batch, noise)[0].item() == pytest.approx(plain.item() / 2, rel=1e-9)
    model.eta = 0.1
    assert abs(model.bc_flow_loss(batch, noise)[0].item() / plain.item() - 0.5) > 0.01


@pytest.mark.parametrize("guidance_fn", ["softmax", "advantage"])
def test_06_the_worse_reference_raises_guidance(monkeypatch: pytest.MonkeyPatch, guidance_fn: str) -> None:
    q_data, q_actor, q_teacher = th.randn(3, 500, dtype=th.float64, generator=th.Generator().manual_seed(0))
    table = Table(monkeypatch, q_data, q_actor, q_teacher)
    actor = table.guidance(eta=0.7, guidance_fn=guidance_fn)
    worse = table.guidance(eta=0.7, guidance_fn=guidance_fn, guidance_agg="min")
    lower = q_teacher < q_actor
    assert (worse[lower] > actor[lower]).all() and th.equal(worse[~lower], actor[~lower])
    assert 0.3 < lower.double().mean().item() < 0.7


TERMS: dict[str, tuple[str, Callable[[GFP, Batch, FQLNoise], th.Tensor]]] = {
    "L_Q": ("critic", lambda model, batch, noise: model.critic_loss(batch, noise)[0]),
    "q": ("actor", lambda model, batch, noise: model.actor_loss(batch, noise)[1]["q_loss"]),
    "L_distill": ("actor", lambda model, batch, noise: model.actor_loss(batch, noise)[1]["distill_loss"]),
    "L_VaBC": ("bc_flow", lambda model, batch, noise: model.bc_flow_loss(batch, noise)[0]),
}


def image_model(size: int = 8, **kwargs: Any) -> GFP:
    env = AnySpaces(spaces.Box(0, 255, (1, size, size), np.uint8), spaces.Box(-1.0, 1.0, (2,)))
    policy_kwargs = {"net_arch": [8], "features_extractor_kwargs": {"cnn_output_dim": 6}}
    return GFP("FlowPolicy", env, policy_kwargs=policy_kwargs, device="cpu", seed=0, **kwargs)


def with_images(batch: Batch, size: int = 8) -> Batch:
    images = th.randint(0, 256, (BATCH, 1, size, size), generator=th.Generator().manual_seed(0), dtype=th.uint8)
    return batch._replace(observations=images, next_observations=images.flip(2))


@pytest.mark.parametrize("pixels", [False, True], ids=["vectors", "pixels"])
@pytest.mark.parametrize("term", TERMS)
def test_07_gradient_routing(term: str, pixels: bool) -> None:
    """The table of 4.6: each term has a gradient for one network, with its encoder, and never for a target."""
    options: dict[str, Any] = dict(guidance_agg="min", target_agg="mean", eta=1.0)
    batch, noise = random_batch(Variant(action_dim=2), 0, th.float32)
    if pixels:
        model, batch = image_model(**options), with_images(batch)
    else:
        model = make_model(action_dim=2, **options)
    owner, loss = TERMS[term]
    loss(model, batch, noise).backward()
    for name, parameter in model.policy.named_parameters():
        if name.split(".")[0] == owner:
            assert parameter.grad is not None and parameter.grad.abs().max().item() > 0, name
        else:
            assert parameter.grad is None or not parameter.grad.any(), name
    assert {name.split(".")[0] for name, _ in model.policy.named_parameters()} == set(NETWORKS)


def test_08_the_scale_of_values_is_a_constant() -> None:
    """d(lambda mean q)/d theta = lambda d(mean q)/d theta."""
    variant = VARIANTS["default"]
    model = double(variant.model())
    with th.no_grad():
        model.policy.critic.net.biases[-1].add_(20.0)  # values of one sign: with its gradient, lambda mean q is constant
    batch, noise = random_batch(variant, 0)
    proposals = model.propose(batch, noise)
    assert proposals.q.min().item() > 0
    actor = list(model.policy.actor.parameters())
    found = th.autograd.grad(model.actor_loss(batch, noise, proposals)[1]["q_loss"], actor, retain_graph=True)
    plain = th.autograd.grad(proposals.q.mean(), actor)
    scale = sum(proposals.q.abs().tolist()) / BATCH
    for gradient, of_q in zip(found, plain, strict=True):
        th.testing.assert_close(gradient, -of_q / scale, rtol=1e-10, atol=1e-14)
        assert of_q.abs().max().item() > 1e-3


def test_08_values_of_zero_divide_nothing() -> None:
    """4.3: the mean of |q| is at least 1e-8, so that a critic that says 0 gives finite losses."""
    model = make_model()
    with th.no_grad():
        for network in (model.policy.critic, model.policy.critic_target):
            network.net.weights[-1].zero_()
    batch, noise = random_batch(Variant(action_dim=1), 0, th.float32)
    proposals = model.propose(batch, noise)
    assert proposals.scale.item() == pytest.approx(1e-8)
    assert model.guidance(batch, proposals).tolist() == [0.5] * BATCH
    assert math.isfinite(model.loss(batch, noise)[0].item())


def test_09_strong_distillation_is_all_that_counts() -> None:
    variant = VARIANTS["default"]
    model = double(variant.model())
    batch, noise = random_batch(variant, 0)
    actor = list(model.policy.actor.parameters())

    def direction(loss: th.Tensor) -> th.Tensor:
        gradient = th.cat([part.flatten() for part in th.autograd.grad(loss, actor)])
        return gradient / gradient.norm()

    distillation = direction(model.actor_loss(batch, noise)[1]["distill_loss"])
    assert (direction(model.actor_loss(batch, noise)[0]) - distillation).norm().item() > 0.01
    model.alpha = 1e10
    th.testing.assert_close(direction(model.actor_loss(batch, noise)[0]), distillation, rtol=0, atol=1e-8)


def same_policies(model: GFP, monkeypatch: pytest.MonkeyPatch) -> None:
    """Patch a model so that actor and teacher do the same, which depends on the state and on the noise."""

    def act(observations: th.Tensor, noise: th.Tensor) -> th.Tensor:
        return th.tanh(observations.sum(dim=1, keepdim=True) + noise)

    monkeypatch.setattr(model.policy, "act_bc_flow", act)
    monkeypatch.setattr(model.policy, "act_one_step", act)
    monkeypatch.setattr(model.policy, "one_step", lambda network, observations, noise: act(observations, noise))


def test_09_equal_policies_have_no_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    """They start from one noise (pitfall 8)."""
    model = make_model()
    same_policies(model, monkeypatch)
    batch, noise = random_batch(Variant(action_dim=1), 0, th.float32)
    assert model.actor_loss(batch, noise)[1]["distill_loss"].item() == 0.0


@pytest.mark.parametrize("flow_steps", [1, 10])
def test_10_flows_of_simple_fields(monkeypatch: pytest.MonkeyPatch, flow_steps: int) -> None:
    policy = make_model(flow_steps=flow_steps).policy
    z, obs = th.linspace(-3, 3, 61, dtype=th.float64)[:, None], th.zeros(61, OBS_DIM)
    for field, expected in (
        (lambda x, t: th.full_like(x, 0.7), (z + 0.7).clip(-1, 1)),
        (lambda x, t: -x, (z * (1 - 1 / flow_steps) ** flow_steps).clip(-1, 1)),
    ):
        monkeypatch.setattr(policy, "velocity", lambda network, observations, field=field: field)
        th.testing.assert_close(policy.act_bc_flow(obs, z), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("target_agg", ["mean", "min", "max", "vabc"])
def test_11_equal_policies_have_one_target(monkeypatch: pytest.MonkeyPatch, target_agg: str) -> None:
    """With the teacher at s': both act from one z'."""
    model = make_model(target_vabc_at_next=True)
    same_policies(model, monkeypatch)
    batch, noise = random_batch(Variant(action_dim=1), 0, th.float32)
    of_actor = model.next_value(batch, noise)
    model.target_agg = target_agg
    assert th.equal(model.next_value(batch, noise), of_actor)
    assert of_actor.std().item() > 0.01


@pytest.mark.parametrize("target_agg", ["mean", "vabc"])
def test_12_the_teachers_state_matters_where_states_differ(target_agg: str) -> None:
    variant = Variant(target_agg=target_agg)
    model = variant.model()
    batch, noise = random_batch(variant, 0, th.float32)
    half = th.arange(BATCH) < BATCH // 2
    batch = batch._replace(next_observations=th.where(half[:, None], batch.observations, batch.next_observations))
    here = model.next_value(batch, noise)
    model.target_vabc_at_next = True
    there = model.next_value(batch, noise)
    th.testing.assert_close(here[half], there[half], rtol=0, atol=1e-6)
    assert ((here - there)[~half].abs() > 1e-3).double().mean().item() > 0.5


@pytest.mark.parametrize("q_agg", ["mean", "min"])
def test_13_a_critic_twice_is_one_critic(q_agg: str) -> None:
    one, two = (make_model(q_agg=q_agg, policy_kwargs={"n_critics": n}) for n in (1, 2))
    two.policy.load_state_dict(one.policy.state_dict() | {
        name: value.expand(2, *value.shape[1:]) for name, value in one.policy.state_dict().items() if name.startswith("critic")
    })  # fmt: skip
    batch, noise = random_batch(Variant(action_dim=1), 0, th.float32)
    for loss in (GFP.critic_loss, GFP.actor_loss, GFP.bc_flow_loss):
        assert loss(two, batch, noise)[0].item() == pytest.approx(loss(one, batch, noise)[0].item(), rel=1e-5)


@pytest.mark.parametrize("target_agg", ["actor", "mean", "min", "max", "vabc"])
def test_14_the_minimum_of_critics_lowers_the_target(target_agg: str) -> None:
    variant = Variant(target_agg=target_agg)
    model = variant.model()
    batch, noise = random_batch(variant, 0, th.float32)
    mean = model.next_value(batch, noise)
    model.q_agg = "min"
    assert (model.next_value(batch, noise) < mean).all()


@pytest.mark.parametrize("target_agg", ["actor", "mean", "min", "max", "vabc"])
def test_15_nothing_follows_the_end_of_a_task(target_agg: str) -> None:
    """m = 0: y = r exactly."""
    variant = Variant(target_agg=target_agg)
    model = double(variant.model())
    batch, noise = random_batch(variant, 0)
    batch = batch._replace(masks=th.zeros(BATCH, dtype=th.float64))
    qs = model.policy.q_values(model.policy.critic, batch.observations, batch.actions)
    loss = model.critic_loss(batch, noise)[0]
    assert loss.item() == pytest.approx((qs - batch.rewards).square().mean().item(), rel=1e-14)
    with th.no_grad():
        model.policy.critic_target.net.biases[-1].add_(1e3)
    assert model.critic_loss(batch, noise)[0].item() == loss.item()


def test_16_targets_follow_frozen_critics() -> None:
    """After n updates that change nothing, Q' - Q has shrunk by (1 - tau)^n."""
    variant = Variant(tau=0.1, learning_rate=0.0, target_agg="mean")
    model = double(variant.model())
    critic, target = list(model.policy.critic.parameters()), list(model.policy.critic_target.parameters())
    phi = [parameter.detach().clone() for parameter in critic]
    distance = [(first - second).detach().clone() for first, second in zip(target, critic, strict=True)]
    for n in range(1, 6):
        model.update(*random_batch(variant, n))
        for parameter, fixed, start in zip(target, phi, distance, strict=True):
            th.testing.assert_close(parameter - fixed, 0.9**n * start, rtol=0, atol=1e-13)
    assert all(th.equal(parameter, fixed) for parameter, fixed in zip(critic, phi, strict=True))


def test_17_outside_of_the_box(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outputs beyond 1 get nothing from the values and are brought back by the distillation."""
    model = double(make_model(action_dim=3))
    batch, noise = random_batch(Variant(action_dim=3), 0)
    outputs = th.tensor([[0.3, 1.2, -0.4], [-5.0, 0.0, 0.9]], dtype=th.float64).repeat(BATCH // 2, 1).requires_grad_()
    teacher = th.tensor([0.1, -0.2, 0.5], dtype=th.float64).expand(BATCH, 3)
    monkeypatch.setattr(model.policy, "one_step", lambda network, observations, noise: outputs)
    monkeypatch.setattr(model.policy, "act_bc_flow", lambda observations, noise: teacher)
    metrics = model.actor_loss(batch, noise)[1]
    (of_values,) = th.autograd.grad(metrics["q_loss"], outputs, retain_graph=True)
    assert th.equal(of_values == 0, outputs.abs() > 1)
    (of_distance,) = th.autograd.grad(metrics["distill_loss"], outputs)
    th.testing.assert_close(of_distance, 2 * (outputs.detach() - teacher) / (3 * BATCH), rtol=0, atol=1e-15)


def test_18_time_embedding() -> None:
    t = th.linspace(0, 1, 11, dtype=th.float64)[:, None]
    found = sinusoid(t, 64, intervals=31)
    assert found.shape == (11, 64)
    assert found[0].tolist() == [0.0] * 32 + [1.0] * 32
    assert found[:, 0].tolist() == t[:, 0].sin().tolist()
    for i in range(11):
        for k in range(32):
            angle = t[i].item() * math.exp(-k * math.log(10000) / 31)
            assert found[i, k].item() == pytest.approx(math.sin(angle), abs=1e-14)
            assert found[i, 32 + k].item() == pytest.approx(math.cos(angle), abs=1e-14)


@pytest.mark.nightly
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("eta", "low", "high"),
    [(0.05, 0.9, 1.0), pytest.param(1e3, 0.38, 0.62, marks=pytest.mark.nightly)],
)
def test_19_two_modes(eta: float, low: float, high: float, seed: int) -> None:
    """
    A bandit whose data sits around -0.6 and 0.6 in equal parts, with a reward at 0.6. A teacher with guidance clones the
    better half only (at least 0.9 of its actions are there); with eta = 1000 all weights are a half, and it clones both.
    """
    rng = np.random.default_rng(seed)
    n = 2000
    side = np.where(np.arange(n) < n // 2, 1.0, -1.0)[:, None]
    actions = 0.6 * side + 0.05 * rng.normal(size=(n, 1))
    data = dict(observations=np.ones((n, 1)), actions=actions, rewards=(side[:, 0] + 1) / 2, terminations=np.ones(n))
    model = make_model(
        obs_dim=1, net_arch=(32, 32), dataset=data, eta=eta, learning_rate=3e-3, batch_size=128, flow_steps=6, seed=seed
    )
    model.learn(700)
    z = th.randn(2000, 1, generator=th.Generator().manual_seed(seed))
    with th.no_grad():
        found = model.policy.act_bc_flow(th.ones(2000, 1), z)
    good, bad = (((found - mode).abs() < 0.3).double().mean().item() for mode in (0.6, -0.6))
    assert low < good <= high
    assert good + bad > 0.8  # hardly anything lies between the modes, where the data has nothing


def test_20_encoders_of_published_images() -> None:
    """64 x 64 with nine channels: 2048 numbers, then 512; one encoder for each of the three networks."""
    policy = GFPPolicy(spaces.Box(0, 255, (9, 64, 64), np.uint8), spaces.Box(-1, 1, (2,)), lambda _: 3e-4, net_arch=[4])
    images = th.zeros(2, 9, 64, 64, dtype=th.uint8)
    for name in NETWORKS:
        network = getattr(policy, name)
        encoder = network.features_extractor.encoders[0]
        assert encoder.stacks(images.float()).flatten(start_dim=1).shape == (2, 2048)
        assert (encoder.linear.in_features, encoder.linear.out_features) == (2048, 512)
        assert policy.features(network, images).shape == (2, 512)


# Acting.


@pytest.mark.parametrize("sampler", ["one_step", "vabc"])
def test_samplers(sampler: str) -> None:
    """Section 5: both policies act, from one noise a call; deterministic means zero noise."""
    variant = Variant(action_dim=2)
    model = variant.model()
    reference = Reference(model, variant)
    policy = model.policy.with_sampler(sampler)
    assert list(model.policy.samplers) == ["one_step", "vabc"] and model.policy.sampler == "one_step"
    batch, noise = random_batch(variant, 0, th.float32)
    obs, z = batch.observations, noise.z

    def exact(z: th.Tensor) -> th.Tensor:
        act = reference.flow if sampler == "vabc" else reference.one_step
        return act(obs.double(), z.double()).detach().clip(-1, 1)

    with th.no_grad():
        th.testing.assert_close(policy.act(obs, z).double(), exact(z), rtol=0, atol=1e-5)
    middle = exact(th.zeros_like(z)).numpy()
    np.testing.assert_allclose(policy.predict(obs.numpy(), deterministic=True)[0], middle, atol=1e-5)
    if sampler == "one_step":
        np.testing.assert_allclose(model.predict(obs.numpy(), deterministic=True)[0], middle, atol=1e-5)
    th.manual_seed(0)
    actions, state = policy.predict(obs.numpy())
    th.manual_seed(0)
    np.testing.assert_allclose(actions, exact(th.randn(BATCH, 1, 2)[:, 0]).numpy(), atol=1e-5)
    assert state is None


def test_image_observations() -> None:
    """Section 8: three encoders, each in one network, and a copy in the target; an update changes all four."""
    model = image_model(target_agg="mean", guidance_agg="min")
    policy = model.policy
    encoders = {name: list(getattr(policy, name).features_extractor.parameters()) for name in NETWORKS}
    storage = [parameter.data_ptr() for parameters in encoders.values() for parameter in parameters]
    assert len(set(storage)) == len(storage) and all(encoders.values())
    before = {name: parameter.detach().clone() for name, parameter in policy.named_parameters()}
    batch, noise = random_batch(Variant(action_dim=2), 0, th.float32)
    metrics = model.update(with_images(batch), noise)
    assert all(math.isfinite(value.item()) for value in metrics.values())
    for name, parameter in policy.named_parameters():
        assert not th.equal(parameter, before[name]), name


# Offline, then online.


@pytest.mark.parametrize("eta_online", [0.0, 0.5, None])
def test_eta_online(eta_online: float | None, tmp_path: Path) -> None:
    """Section 7: the first online update has the new temperature, the last offline one the old; both are saved."""
    rng = np.random.default_rng(0)
    data = dict(
        observations=rng.normal(size=(30, 3)),
        actions=rng.uniform(-2, 2, (30, 1)),
        rewards=rng.normal(size=30),
        terminals=np.arange(30) % 10 == 9,
    )
    expected = 0.1 if eta_online is None else eta_online
    model = GFP(
        "FlowPolicy",
        pendulum(),
        eta=0.1,
        eta_online=eta_online,
        dataset=data,
        offline_steps=6,
        learning_starts=4,
        batch_size=8,
        flow_steps=2,
        policy_kwargs={"net_arch": [8]},
        device="cpu",
        seed=0,
    )

    def etas_of_updates(model: GFP, timesteps: int) -> list[float]:
        """``eta``, and what the loss makes of it, at each update of a training."""
        etas: list[float] = []
        guidance = model.guidance

        def watched(batch: Batch, proposals: Proposals) -> th.Tensor:
            etas.append(model.eta)
            found = guidance(batch, proposals)
            assert (found == 1).all() == (model.eta == 0)
            return found

        model.guidance = watched
        model.learn(timesteps, reset_num_timesteps=False)
        del model.guidance
        return etas

    assert etas_of_updates(model, 3) == [0.1] * 3
    model.save(tmp_path / "offline")
    assert etas_of_updates(model, 3 + 10) == [0.1] * 3 + [expected] * 6
    model.save(tmp_path / "online")
    online = GFP.load(tmp_path / "online", pendulum())
    assert (online.eta, online.eta_online) == (expected, eta_online)
    offline = GFP.load(tmp_path / "offline", pendulum(), dataset=data)
    assert (offline.eta, offline.eta_online) == (0.1, eta_online)
    assert etas_of_updates(offline, 3 + 10) == [0.1] * 3 + [expected] * 6


# Arguments.


def test_published_defaults() -> None:
    """Section 6.1, and the networks of section 3."""
    model = make_model()
    expected: dict[str, Any] = dict(alpha=1.0, eta=1e-3, eta_online=None, guidance_fn="softmax", guidance_agg="actor")
    expected |= dict(target_agg="actor", target_vabc_at_next=False, q_agg="mean", normalize_q_loss=True)
    expected |= dict(learning_rate=3e-4, batch_size=256, tau=0.005, gamma=0.99, n_steps=1, max_grad_norm=None)
    assert {name: getattr(model, name) for name in expected} == expected
    assert (model.policy.flow_steps, model.policy.horizon_length) == (10, 1)
    policy = GFPPolicy(spaces.Box(-1, 1, (3,)), spaces.Box(-1, 1, (2,)), lambda _: 3e-4)
    assert [layer.in_features for layer in policy.bc_flow.net.layers] == [3 + 2 + 64, 512, 512, 512, 512]
    assert [layer.in_features for layer in policy.actor.net.layers] == [3 + 2, 512, 512, 512, 512]
    assert [tuple(weight.shape) for weight in policy.critic.net.weights] == [(2, 5, 512), *[(2, 512, 512)] * 3, (2, 512, 1)]
    assert policy.critic.net.layer_norm


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"eta_online": -0.1}, "`eta_online` is -0.1"),
        ({"alpha": -1.0}, "`alpha` is -1.0"),
        ({"policy_kwargs": {"encode_time_dim": 2}}, "`encode_time_dim` is 2"),
        ({"eta": -1.0}, "`eta` is -1.0"),
        ({"guidance_fn": "sigmoid"}, "'sigmoid'.*'softmax', 'advantage'"),
        ({"guidance_agg": "mean"}, "'mean'.*'actor', 'min'"),
        ({"target_agg": "critic"}, "'critic'.*'vabc'"),
        ({"policy_kwargs": {"encode_time_dim": 7}}, "`encode_time_dim` is 7"),
        ({"flow_steps": 0}, "`flow_steps` is 0"),
    ],
    ids=str,
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    """The constructor raises an error that names the argument and its value."""
    with pytest.raises(ValueError, match=message):
        make_model(**arguments)


def test_teacher_has_one_name() -> None:
    """GFP has no sampler named ``bc_flow``: its flow is weighted, not a BC flow."""
    with pytest.raises(ValueError, match=r"'bc_flow'.*one_step, vabc"):
        make_model().policy.with_sampler("bc_flow")
