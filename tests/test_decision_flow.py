"""
Decision Flow against a second implementation, in both variants: the equations of its specification, written out slowly in
float64, sample by sample and step by step.

``Reference`` shares no code with the package, see ``transcription.py``. Section numbers are those of the method's
specification, P1 .. P17 its cheap properties. The specification is a reconstruction: so these tests say that the code is what
the documentation says, and nothing about the authors' code.
"""

import copy
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from conformance.environments import AnySpaces
from gymnasium import spaces
from transcription import (
    BATCH,
    OBS_DIM,
    SEEDS,
    Draw,
    Transcription,
    assert_single_precision,
    box_env,
    each_column,
    nightly_except,
    parameters_of,
    shake,
)

from sb3_flow import DecisionFlow
from sb3_flow.common import networks
from sb3_flow.common.flow import euler
from sb3_flow.common.type_aliases import Batch
from sb3_flow.decision_flow import DecisionFlowPolicy
from sb3_flow.decision_flow.decision_flow import DecisionFlowNoise
from sb3_flow.decision_flow.inner import divergence, inner_rollout, misdirection


@pytest.fixture(autouse=True)
def size_of_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors as small as here would take PyTorch's GELU; compare the fast one."""
    monkeypatch.setattr(networks, "SMALL", 0)


def make_model(action_dim: int = 2, n_critics: int = 2, encode_time_dim: int = 8, **kwargs: Any) -> DecisionFlow:
    policy_kwargs = {"net_arch": (24, 16), "n_critics": n_critics, "encode_time_dim": encode_time_dim}
    return DecisionFlow(
        "FlowPolicy", box_env(action_dim=action_dim), policy_kwargs=policy_kwargs, device="cpu", **{"seed": 0, **kwargs}
    )


# The second implementation.


@dataclass
class Variant:
    variant: str = "dir"
    fm_coef: float | None = None
    beta: float | None = None
    flow_steps: int = 5
    q_agg: str = "mean"
    on_policy_share: float = 0.5
    flow_target: str = "mc"
    direction_coef: float = 0.0
    expectile: float | None = None
    action_dim: int = 2
    horizon_length: int = 1
    n_critics: int = 2
    encode_time_dim: int = 8
    gamma: float = 0.99
    tau: float = 0.005
    learning_rate: float = 3e-4

    @property
    def dim(self) -> int:
        """Size of a chunk of actions."""
        return self.action_dim * self.horizon_length

    @property
    def is_div(self) -> bool:
        return self.variant == "div"

    @property
    def w_fm(self) -> float:
        """4.7: flow matching is part of DF-dir, and no part of DF-div by default."""
        return (0.0 if self.is_div else 0.06) if self.fm_coef is None else self.fm_coef

    def model(self) -> DecisionFlow:
        model = make_model(**asdict(self))
        shake(model, 0.25)
        return model


VARIANTS = {
    "dir": Variant(flow_steps=10),
    "dir, weight given": Variant(fm_coef=0.3, q_agg="min", action_dim=3),
    "dir, no flow matching": Variant(fm_coef=0.0),
    "dir, interpolants only": Variant(on_policy_share=0.0),
    "dir, own states only": Variant(on_policy_share=1.0, n_critics=3),
    "dir, one step": Variant(flow_steps=1, n_critics=1),
    "dir, direction": Variant(direction_coef=0.7, action_dim=3),
    "dir, direction, td": Variant(direction_coef=0.4, flow_target="td", flow_steps=3),
    "dir, td": Variant(flow_target="td", tau=0.1, q_agg="min"),
    "dir, expectile": Variant(expectile=0.8, q_agg="min"),
    "dir, time itself": Variant(encode_time_dim=0),
    "dir, chunks": Variant(horizon_length=3, gamma=0.9),
    "div": Variant("div", flow_steps=10),
    "div, weights given": Variant("div", beta=0.3, fm_coef=0.2, q_agg="min"),
    "div, no divergence": Variant("div", beta=0.0, action_dim=1),
    "div, td": Variant("div", beta=3.0, flow_target="td", n_critics=3),
    "div, expectile, chunks": Variant("div", expectile=0.7, horizon_length=2, gamma=0.9),
    "div, fast": Variant("div", beta=2.0, tau=0.3, learning_rate=0.02, flow_steps=4),
}
#: Those of which parameters are compared without `--all`, too; losses and gradients are for all.
OFTEN = ("dir", "dir, td", "dir, chunks", "div", "div, td", "div, fast")


class Reference(Transcription):
    """Section 4, literally."""

    variant: Variant

    def __init__(self, model: DecisionFlow, variant: Variant) -> None:
        if variant.flow_target == "td":
            self.targets = {"critic_target": "critic", "flow_critic_target": "flow_critic"}  # type: ignore[misc]
        super().__init__(model, variant)
        self.owners = {"critic": "critic_loss", "flow_critic": "flow_critic_loss", "flow": "policy_loss"}
        if variant.is_div:
            self.owners["bc_flow"] = "bc_flow_loss"
        if variant.expectile is not None:
            self.owners["state_value"] = "value_loss"
        #: lambda_hat; None before the first update.
        self.lambda_hat: float | None = None

    def embed(self, t: th.Tensor) -> th.Tensor:
        """Section 3: sines, then cosines, of frequencies that fall from 1 to 1/10000."""
        n = self.variant.encode_time_dim // 2
        if n == 0:
            return t
        frequencies = [math.exp(-i * math.log(1e4) / (n - 1)) for i in range(n)]
        return th.cat([wave(t * f) for wave in (th.sin, th.cos) for f in frequencies], dim=1)

    def field(self, network: str, s: th.Tensor, x: th.Tensor, t: th.Tensor) -> th.Tensor:
        return self.mlp(network, s, x, self.embed(t))

    def step_field(self, network: str, s: th.Tensor, x: th.Tensor, k: int) -> th.Tensor:
        return self.field(network, s, x, th.full((len(x), 1), k / self.variant.flow_steps, dtype=th.float64))

    def agg(self, network: str, s: th.Tensor, a: th.Tensor) -> th.Tensor:
        qs = [self.q(network, i, s, a) for i in range(self.variant.n_critics)]
        if self.variant.q_agg == "mean":
            return sum(qs) / len(qs)
        lowest = qs[0]
        for q in qs[1:]:
            lowest = th.where(q < lowest, q, lowest)
        return lowest

    def mean_v(self, network: str, s: th.Tensor, x: th.Tensor, k: int) -> th.Tensor:
        t = th.full((len(x), 1), k / self.variant.flow_steps, dtype=th.float64)
        n = self.variant.n_critics
        return sum(self.q(network, i, s, th.cat([x, self.embed(t)], dim=1)) for i in range(n)) / n

    def final(self, s: th.Tensor, x: th.Tensor, k: int = 0, network: str = "flow") -> th.Tensor:
        """Psi, not clipped."""
        for j in range(k, self.variant.flow_steps):
            x = x + self.step_field(network, s, x, j) / self.variant.flow_steps
        return x

    def state_value(self, s: th.Tensor) -> th.Tensor:
        return self.q("state_value", 0, s, s[:, :0])

    # 4.1

    def critic_loss(self, batch: Batch, noise: DecisionFlowNoise) -> th.Tensor:
        variant, total = self.variant, th.zeros((), dtype=th.float64)
        with th.no_grad():
            if variant.expectile is None:
                next_actions = th.clip(self.final(batch.next_observations, noise.next_noise), -1, 1)
                next_value = self.agg("critic_target", batch.next_observations, next_actions)
            else:
                next_value = self.state_value(batch.next_observations)
            y = batch.rewards + batch.discounts * batch.masks * next_value
        for i in range(variant.n_critics):
            total = total + (batch.valids * (self.q("critic", i, batch.observations, batch.actions) - y) ** 2).sum()
        return total / (BATCH * variant.n_critics)  # half the sum, where there are two

    def value_loss(self, batch: Batch) -> th.Tensor:
        total = th.zeros((), dtype=th.float64)
        q = self.agg("critic_target", batch.observations, batch.actions).detach()
        v = self.state_value(batch.observations)
        for b in range(BATCH):
            below = q[b].item() < v[b].item()
            total = total + batch.valids[b] * abs(self.variant.expectile - below) * (q[b] - v[b]) ** 2
        return total / BATCH

    # 4.2 to 4.5

    def inner(self, batch: Batch, noise: DecisionFlowNoise) -> dict[str, Any]:
        """Sample by sample: ``x_k``, the final action, the price-free cost of each step from ``k`` on, and ``x_{k+1}``."""
        variant, n = self.variant, self.variant.flow_steps
        found: dict[str, Any] = {"x": [], "end": [], "costs": [], "next_x": [], "on_policy": []}
        for b in range(BATCH):
            s, a, eps, k = batch.observations[b : b + 1], batch.actions[b : b + 1], noise.start[b : b + 1], noise.k[b].item()
            on_policy = noise.on_policy[b].item() < variant.on_policy_share or batch.valids[b].item() == 0
            if on_policy:
                x = eps
                for j in range(k):
                    x = x + self.step_field("flow", s, x, j) / n
            else:
                x = (1 - k / n) * eps + k / n * a
            found["x"].append(x)
            costs = []
            for j in range(k, n):
                u = self.step_field("flow", s, x, j)
                costs.append(self.cost(s, x, u, j, a, on_policy).item() / n)
                x = x + u / n
                if j == k:
                    found["next_x"].append(x)
            found["end"].append(x)
            found["costs"].append(costs)
            found["on_policy"].append(on_policy)
        return found

    def cost(self, s: th.Tensor, x: th.Tensor, u: th.Tensor, j: int, a: th.Tensor, on_policy: bool) -> th.Tensor:
        """4.4: ``-r_k / Delta`` without its price, for one sample."""
        if self.variant.is_div:
            return ((u - self.step_field("bc_flow", s, x, j).detach()) ** 2).sum() / 2
        if self.variant.direction_coef == 0 or on_policy:
            return th.zeros((), dtype=th.float64)
        way = a - x
        return 1 - (u * way).sum() / (th.sqrt((u**2).sum()) * th.sqrt((way**2).sum()))

    def flow_losses(self, batch: Batch, noise: DecisionFlowNoise) -> dict[str, th.Tensor]:
        """4.3 and 4.7"""
        variant, n = self.variant, self.variant.flow_steps
        with th.no_grad():
            inner = self.inner(batch, noise)
        self.ends = th.cat(inner["end"])
        size = sum(abs(self.end(batch, x, b).item()) for b, x in enumerate(inner["end"])) / BATCH
        rate = 1 / max(size, 1e-6)
        self.next_lambda_hat = rate if self.lambda_hat is None else 0.99 * self.lambda_hat + 0.01 * rate
        price = (0.12 if variant.beta is None else variant.beta) / self.next_lambda_hat
        price = price if variant.is_div else variant.direction_coef

        flow_critic_loss = policy_loss = th.zeros((), dtype=th.float64)
        for b in range(BATCH):
            s, k, x = batch.observations[b : b + 1], noise.k[b].item(), inner["x"][b]
            with th.no_grad():
                if variant.flow_target == "mc" or k + 1 == n:
                    g = self.end(batch, inner["end"][b], b)
                else:
                    g = self.mean_v("flow_critic_target", s, inner["next_x"][b], k + 1)
                paid = inner["costs"][b] if variant.flow_target == "mc" else inner["costs"][b][:1]
                for cost in paid:
                    g = g - price * cost
            t = th.full((1, 1), k / n, dtype=th.float64)
            for i in range(variant.n_critics):
                v = self.q("flow_critic", i, s, th.cat([x, self.embed(t)], dim=1))
                flow_critic_loss = flow_critic_loss + ((v - g) ** 2).sum() / (BATCH * variant.n_critics)

            u = self.step_field("flow", s, x, k)
            after = x + u / n
            if k + 1 < n:
                w = self.mean_v("flow_critic", s, after, k + 1)
            else:
                w = self.agg("critic", s, th.clip(after, -1, 1))
            policy_loss = policy_loss - rate * n * w.sum() / BATCH
            cost = self.cost(s, x, u, k, batch.actions[b : b + 1], inner["on_policy"][b])
            weight = (0.12 if variant.beta is None else variant.beta) if variant.is_div else rate * variant.direction_coef
            policy_loss = policy_loss + weight * cost / BATCH
        policy_loss = policy_loss + variant.w_fm * self.flow_matching("flow", batch, noise)
        return {"flow_critic_loss": flow_critic_loss, "policy_loss": policy_loss}

    def end(self, batch: Batch, x: th.Tensor, b: int) -> th.Tensor:
        return self.agg("critic_target", batch.observations[b : b + 1], th.clip(x, -1, 1))

    # 4.6

    def flow_matching(self, network: str, batch: Batch, noise: DecisionFlowNoise) -> th.Tensor:
        x_t = (1 - noise.t) * noise.x0 + noise.t * batch.actions
        error = self.field(network, batch.observations, x_t, noise.t) - (batch.actions - noise.x0)
        return (batch.valids[:, None] * error**2).sum() / BATCH

    def losses(self, batch: Batch, noise: DecisionFlowNoise) -> dict[str, th.Tensor]:
        losses = {"critic_loss": self.critic_loss(batch, noise), **self.flow_losses(batch, noise)}
        if self.variant.is_div:
            losses["bc_flow_loss"] = self.flow_matching("bc_flow", batch, noise)
        if self.variant.expectile is not None:
            losses["value_loss"] = self.value_loss(batch)
        return losses | {"loss": sum(losses.values())}

    def update(self, batch: Batch, noise: DecisionFlowNoise) -> None:
        """4.8"""
        super().update(batch, noise)
        self.lambda_hat = self.next_lambda_hat


def random_batch(variant: Variant, seed: int, dtype: th.dtype = th.float64) -> tuple[Batch, DecisionFlowNoise]:
    draw, dim = Draw(seed, dtype), variant.dim
    batch = draw.batch(dim, variant.gamma, n_steps=variant.horizon_length, valid=0.6 if variant.horizon_length > 1 else 1.0)
    noise = DecisionFlowNoise(
        next_noise=draw.normal(BATCH, dim),
        start=draw.normal(BATCH, dim),
        k=th.as_tensor(draw.rng.permutation(np.arange(BATCH) % variant.flow_steps))[:, None],
        on_policy=draw.uniform(BATCH, 1),
        x0=draw.normal(BATCH, dim),
        t=draw.uniform(BATCH, 1),
    )
    return batch, noise


def model_losses(model: DecisionFlow, batch: Batch, noise: DecisionFlowNoise) -> dict[str, th.Tensor]:
    inner = model.inner_states(batch, noise)
    losses = {
        "critic_loss": model.critic_loss(batch, noise)[0],
        "flow_critic_loss": model.flow_critic_loss(batch, inner)[0],
        "policy_loss": model.policy_loss(batch, noise, inner)[0],
    }
    if model.variant == "div":
        losses["bc_flow_loss"] = model.bc_flow_loss(batch, noise)[0]
    if model.expectile is not None:
        losses["value_loss"] = model.value_loss(batch)[0]
    return losses | {"loss": model.loss(batch, noise)[0]}


def both(variant: Variant) -> tuple[DecisionFlow, Reference]:
    """The package's model in float64, and the transcription with the same parameters."""
    model = variant.model()
    model.policy.double()
    return model, Reference(model, variant)


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_losses_and_gradients(variant: Variant) -> None:
    """4.1 to 4.7: each loss, and its gradient to every parameter, in float64."""
    model, reference = both(variant)
    batch, noise = random_batch(variant, seed=0)
    expected, found = reference.losses(batch, noise), model_losses(model, batch, noise)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(value.item(), rel=1e-11, abs=1e-11), name

    # The batch must show what clipping does: some coordinates outside of the box, some inside.
    assert 0.05 < (reference.ends.abs() >= 1).double().mean().item() < 0.95

    found["loss"].backward()
    reference.assert_gradients(model, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_losses_in_single_precision(variant: Variant) -> None:
    """The same losses in float32, as the package computes them."""
    model = variant.model()
    expected = Reference(model, variant).losses(*random_batch(variant, seed=0))
    found = model_losses(model, *random_batch(variant, seed=0, dtype=th.float32))
    assert_single_precision(found, expected, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("variant", nightly_except(OFTEN, VARIANTS))
def test_parameters_after_updates(variant: Variant) -> None:
    """4.8: all parameters after five updates, those of the targets and lambda_hat too, in float64."""
    model, reference = both(variant)
    start = parameters_of(model)
    for seed in range(5):
        batch, noise = random_batch(variant, seed)
        model.update(batch, noise)
        reference.update(batch, noise)
    reference.assert_parameters(model, start, atol=1e-9)
    assert model.policy.inverse_scale.item() == pytest.approx(reference.lambda_hat, rel=1e-9)


@pytest.mark.parametrize("name", ["dir", "div, weights given", "dir, expectile"])
def test_update_reports_the_losses(name: str) -> None:
    """The metrics are those of the parameters before the step."""
    variant = VARIANTS[name]
    model, reference = both(variant)
    batch, noise = random_batch(variant, seed=0)
    expected = reference.losses(batch, noise)
    metrics = model.update(batch, noise)
    for loss in expected.keys() - {"loss"}:
        assert metrics[loss].item() == pytest.approx(expected[loss].item(), rel=1e-11), loss
    assert metrics["inverse_scale"].item() == pytest.approx(reference.next_lambda_hat, rel=1e-11)
    if variant.w_fm > 0:
        expected_fm = reference_fm(variant, batch, noise)
        assert metrics["flow_matching_loss"].item() == pytest.approx(expected_fm, rel=1e-11)
    if variant.is_div:  # pitfall 11: on the policy's own states only
        model, reference = both(variant)
        inner = reference.inner(batch, noise)
        own = [b for b in range(BATCH) if inner["on_policy"][b]]
        assert 0 < len(own) < BATCH
        costs = [2 * variant.flow_steps * inner["costs"][b][0] for b in own]
        assert metrics["divergence"].item() == pytest.approx(sum(costs) / len(costs), rel=1e-9)


def reference_fm(variant: Variant, batch: Batch, noise: DecisionFlowNoise) -> float:
    return both(variant)[1].flow_matching("flow", batch, noise).item()


# Where gradients go.

TERMS: dict[str, tuple[str, Variant]] = {
    "critic": ("critic_loss", Variant()),
    "critic, expectile": ("critic_loss", Variant(expectile=0.7)),
    "flow_critic": ("flow_critic_loss", Variant()),
    "flow_critic, td": ("flow_critic_loss", Variant("div", flow_target="td")),
    "flow": ("policy_loss", Variant(direction_coef=0.5)),
    "flow, div": ("policy_loss", Variant("div", fm_coef=0.5)),
    "bc_flow": ("bc_flow_loss", Variant("div")),
    "state_value": ("value_loss", Variant(expectile=0.7)),
}


@pytest.mark.parametrize("pixels", [False, True], ids=["vectors", "pixels"])
@pytest.mark.parametrize("term", TERMS)
def test_gradient_isolation(term: str, pixels: bool) -> None:
    """P6: each loss has a gradient for one network, with its encoder, and never for a target."""
    loss, variant = TERMS[term]
    batch, noise = random_batch(variant, 0, th.float32)
    if pixels:
        env = AnySpaces(spaces.Box(0, 255, (1, 8, 8), np.uint8), spaces.Box(-1.0, 1.0, (2,)))
        policy_kwargs = {"net_arch": [8], "features_extractor_kwargs": {"cnn_output_dim": 6}}
        names = ("variant", "fm_coef", "flow_steps", "flow_target", "direction_coef", "expectile")
        arguments = {name: getattr(variant, name) for name in names}
        model = DecisionFlow("FlowPolicy", env, policy_kwargs=policy_kwargs, device="cpu", seed=0, **arguments)
        images = th.randint(0, 256, (BATCH, 1, 8, 8), generator=th.Generator().manual_seed(0), dtype=th.uint8)
        batch = batch._replace(observations=images, next_observations=images.flip(2))
    else:
        model = variant.model()
    model_losses(model, batch, noise)[loss].backward()
    owner, moved = term.split(",")[0], set()
    for name, parameter in model.policy.named_parameters():
        network = name.split(".")[0]
        if network == owner:
            assert parameter.grad is not None and parameter.grad.abs().max().item() > 0, name
            moved.add(network)
        else:
            assert parameter.grad is None or not parameter.grad.any(), name
    assert moved == {owner}


@pytest.mark.parametrize("name", ["dir", "dir, td", "dir, expectile", "div", "div, td"])
def test_networks(name: str) -> None:
    """Section 3: what each variant has; targets start as exact copies; one optimizer holds all but the targets."""
    variant = VARIANTS[name]
    policy = make_model(**asdict(variant)).policy
    nets = {parameter.split(".")[0] for parameter, _ in policy.named_parameters()}
    trained = {"flow", "critic", "flow_critic"} | ({"bc_flow"} if variant.is_div else set())
    trained |= {"state_value"} if variant.expectile is not None else set()
    targets = {"critic_target": "critic"} | ({"flow_critic_target": "flow_critic"} if variant.flow_target == "td" else {})
    assert nets == trained | set(targets)
    (group,) = policy.optimizer.param_groups
    held = {id(parameter) for parameter in group["params"]}
    assert held == {id(p) for parameter, p in policy.named_parameters() if parameter.split(".")[0] in trained}
    for target, net in targets.items():
        pairs = zip(getattr(policy, target).parameters(), getattr(policy, net).parameters(), strict=True)
        assert all(th.equal(first, second) and first.data_ptr() != second.data_ptr() for first, second in pairs)


def test_defaults() -> None:
    """Sections 3 and 6."""
    policy = DecisionFlowPolicy(
        spaces.Box(-1, 1, (3,)),
        spaces.Box(-1, 1, (2,)),
        lambda _: 3e-4,
        with_bc_flow=True,
        flow_critic_target=True,
        state_value=True,
    )
    for network in (policy.flow, policy.bc_flow):
        assert [layer.out_features for layer in network.net.layers] == [512, 512, 512, 512, 2]
        assert network.net.layers[0].in_features == 3 + 2 + 64
    for network, inputs, members in ((policy.critic, 5, 2), (policy.flow_critic, 3 + 2 + 64, 2), (policy.state_value, 3, 1)):
        shapes = [tuple(weight.shape) for weight in network.net.weights]
        assert shapes == [(members, inputs, 512), *[(members, 512, 512)] * 3, (members, 512, 1)] and network.net.layer_norm
    model = make_model()
    expected = dict(learning_rate=3e-4, batch_size=256, tau=0.005, gamma=0.99, variant="dir", fm_coef=0.06, q_agg="mean")
    expected |= dict(on_policy_share=0.5, flow_target="mc", direction_coef=0.0, expectile=None, flow_steps=10)
    assert {name: getattr(model, name) for name in expected} == expected
    div = make_model(variant="div")
    assert (div.fm_coef, div.beta) == (0.0, 0.12)


# The inner process.


def random_field(seed: int, dim: int = 2) -> Any:
    generator = th.Generator().manual_seed(seed)
    first, second = (th.randn(shape, generator=generator, dtype=th.float64) for shape in ((dim + 1, 8), (8, dim)))
    return lambda x, t: th.tanh(th.cat([x, t], dim=1) @ first) @ second


@pytest.mark.parametrize("n_steps", [1, 7])
def test_masked_loop(n_steps: int) -> None:
    """P1: each sample's path is that of a loop of its own, exactly; one that starts at 0 everywhere is ``euler``."""
    field, n = random_field(0), 40
    x = th.randn(n, 2, dtype=th.float64)
    k = th.arange(n)[:, None] % n_steps
    start = th.where(th.arange(n)[:, None] % 2 == 0, k, 0)

    def cost(x: th.Tensor, t: th.Tensor, u: th.Tensor) -> th.Tensor:
        return (x * u).sum(dim=1) + t[:, 0]

    path = inner_rollout(field, x, start, k, n_steps, cost)
    for b in range(n):
        here, costs, seen = x[b : b + 1], [], []
        for j in range(start[b].item(), n_steps):
            t = th.full((1, 1), j / n_steps, dtype=th.float64)
            u = field(here, t)
            seen.append(here)
            costs.append(cost(here, t, u).item() / n_steps)
            here = th.add(here, u, alpha=1 / n_steps)
        seen.append(here)
        since = k[b].item() - start[b].item()
        for found, expected in ((path.x, seen[since]), (path.next_x, seen[since + 1]), (path.end, seen[-1])):
            th.testing.assert_close(found[b : b + 1], expected, rtol=0, atol=1e-14)
        assert path.cost[b].item() == pytest.approx(costs[since], abs=1e-12)
        assert path.total_cost[b].item() == pytest.approx(sum(costs[since:]), abs=1e-12)
    whole = inner_rollout(field, x, th.zeros_like(k), k, n_steps)
    th.testing.assert_close(whole.end, euler(field, x, n_steps), rtol=0, atol=1e-14)
    assert not whole.cost.any() and not whole.total_cost.any()


@pytest.mark.parametrize("n_steps", [1, 4, 10])
def test_paths_of_known_fields(n_steps: int) -> None:
    """P13: a constant field c leads to x + (1 - t_k) c, the field -x to x (1 - 1/T)^(T - k)."""
    k = th.arange(n_steps)[:, None]
    x, c = th.randn(n_steps, 3, dtype=th.float64), th.tensor([[0.5, -2.0, 3.0]], dtype=th.float64)
    constant = inner_rollout(lambda x, t: c.expand_as(x), x, k, k, n_steps)
    th.testing.assert_close(constant.end, x + (1 - k.double() / n_steps) * c)
    decay = inner_rollout(lambda x, t: -x, x, k, k, n_steps)
    th.testing.assert_close(decay.end, x * (1 - 1 / n_steps) ** (n_steps - k).double())


@pytest.mark.parametrize("n_steps", [1, 3, 50])
def test_divergence_of_paths(n_steps: int) -> None:
    """P14: for constant fields the costs of a whole path add up to |u - v|^2 / 2, for every number of steps."""
    u, v = th.tensor([[1.0, -2.0]], dtype=th.float64), th.tensor([[0.5, 1.0]], dtype=th.float64)
    zero = th.zeros(1, 1, dtype=th.int64)
    path = inner_rollout(lambda x, t: u, th.randn(1, 2).double(), zero, zero, n_steps, lambda x, t, u: divergence(u, v))
    assert path.total_cost.item() == pytest.approx((0.5**2 + 3.0**2) / 2, rel=1e-12)


def test_misdirection() -> None:
    """0 straight ahead, 1 across, 2 back; how long the vectors are does not matter."""
    x, action = th.tensor([[0.2, 0.0]]).expand(3, 2), th.tensor([[0.6, 0.0]]).expand(3, 2)
    u = th.tensor([[5.0, 0.0], [0.0, -0.1], [-0.3, 0.0]])
    assert misdirection(u, x, action).tolist() == pytest.approx([0.0, 1.0, 2.0], abs=1e-6)


def along_one_path(variant: Variant) -> tuple[DecisionFlow, Any]:
    """A model, and the inner states at every step of one path, which starts from one noise in one state."""
    model, n = variant.model(), variant.flow_steps
    model.policy.double()
    batch, noise = random_batch(variant, 0)
    first = th.zeros(n, dtype=th.int64)
    batch = each_column(batch, lambda column: column[first])
    noise = DecisionFlowNoise(*(part[first] for part in noise))._replace(k=th.arange(n)[:, None])
    return model, model.inner_states(batch, noise)


def test_returns_without_rewards_telescope() -> None:
    """P2: DF-dir: the return is the same from every state of a path."""
    returns = along_one_path(Variant(on_policy_share=1.0, flow_steps=10))[1].returns
    th.testing.assert_close(returns, returns[:1].expand_as(returns), rtol=0, atol=1e-13)


def test_returns_differ_by_the_rewards() -> None:
    """P3: DF-div: G_k - G_{k+1} = r_k = -(beta / lambda_hat) / (2 T) |u - v|^2."""
    model, inner = along_one_path(Variant("div", beta=2.0, on_policy_share=1.0, flow_steps=10))
    policy, s = model.policy, random_batch(Variant(), 0)[0].observations[:1].expand(10, -1)
    t = inner.k.double() / 10
    with th.no_grad():
        distance = (policy.velocity(policy.flow, s)(inner.x, t) - policy.velocity(policy.bc_flow, s)(inner.x, t)).square()
    rewards = -2.0 / inner.running_inverse_scale / 20 * distance.sum(dim=1)
    assert rewards.max().item() < -1e-3
    th.testing.assert_close(inner.returns[:-1] - inner.returns[1:], rewards[:-1], rtol=1e-9, atol=1e-12)


def test_a_flow_that_is_its_clone() -> None:
    """P4: DF-div with u = v: no inner rewards, G_k = Q', and the penalty has no gradient."""
    variant = Variant("div", beta=50.0)
    model = variant.model()
    model.policy.double()
    model.policy.flow.load_state_dict(model.policy.bc_flow.state_dict())
    batch, noise = random_batch(variant, 0)
    inner = model.inner_states(batch, noise)
    for beta in (0.0, 50.0):
        model.beta = beta
        th.testing.assert_close(model.inner_states(batch, noise).returns, inner.returns, rtol=0, atol=0)
        model.policy.zero_grad()
        model.policy_loss(batch, noise, inner)[0].backward()
        gradients = [parameter.grad.clone() for parameter in model.policy.flow.parameters()]
        if beta == 0.0:
            without = gradients
    assert all(th.equal(first, second) for first, second in zip(without, gradients, strict=True))
    assert max(gradient.abs().max().item() for gradient in gradients) > 0


@pytest.mark.parametrize("q_agg", ["mean", "min"])
def test_the_last_step_asks_the_critics(q_agg: str) -> None:
    """P5: after the last step the value is that of the critics, bit by bit; before, it is that of the flow critics."""
    model = Variant(q_agg=q_agg).model()
    batch, noise = random_batch(Variant(), 0, th.float32)
    last = noise.k[:, 0] == model.flow_steps - 1
    assert last.any() and not last.all()
    with th.no_grad():
        x = 2 * noise.start
        qs = model.policy.q_values(model.policy.critic, batch.observations, x.clamp(-1, 1))
        model.policy.flow_critic.net.biases[-1].fill_(math.nan)
        values = model.inner_value(batch, x, noise.k)
    assert th.equal(values[last], (qs.mean(dim=0) if q_agg == "mean" else qs.amin(dim=0))[last])
    assert values[~last].isnan().all()


def test_one_pass_is_differentiated() -> None:
    """P7: the gradient is that of one forward pass at states that are mere numbers."""
    variant = Variant(fm_coef=0.0, on_policy_share=1.0)
    model = variant.model()
    model.policy.double()
    batch, noise = random_batch(variant, 0)
    inner = model.inner_states(batch, noise)
    assert not any(part.requires_grad for part in inner)
    model.policy_loss(batch, noise, inner)[0].backward()
    found = [parameter.grad.clone() for parameter in model.policy.flow.parameters()]
    model.policy.zero_grad()
    numbers = th.tensor(inner.x.tolist(), dtype=th.float64)
    u = model.policy.velocity(model.policy.flow, batch.observations)(numbers, noise.k.double() / variant.flow_steps)
    after = (numbers + u / variant.flow_steps).detach().requires_grad_()
    value = model.inner_value(batch, after, noise.k).mean()
    (slope,) = th.autograd.grad(value, after)  # the same by the chain rule: dW/dx, then du/dtheta
    u.backward(-inner.inverse_scale * slope)
    for first, parameter in zip(found, model.policy.flow.parameters(), strict=True):
        th.testing.assert_close(first, parameter.grad, rtol=1e-9, atol=1e-12)


class Constant(th.nn.Module):
    """A field that is a vector, the same everywhere."""

    def __init__(self, u: th.Tensor) -> None:
        super().__init__()
        self.u = th.nn.Parameter(u.clone())

    def context(self, features: th.Tensor) -> th.Tensor:
        return features

    def forward(self, context: th.Tensor, x: th.Tensor, t: th.Tensor) -> th.Tensor:
        return self.u.expand_as(x)


class Linear(th.nn.Module):
    """Values that rise by a slope in the two numbers that follow the features; two members that differ by a constant."""

    def __init__(self, slope: th.Tensor) -> None:
        super().__init__()
        self.slope = slope

    def forward(self, inputs: th.Tensor, frozen: bool = False) -> th.Tensor:
        value = inputs[:, OBS_DIM : OBS_DIM + 2] @ self.slope
        return th.stack([value + 1, value + 2])


def with_closed_form(variant: Variant, u: th.Tensor, v: th.Tensor, slope: th.Tensor) -> DecisionFlow:
    """A model of constant velocities and linear values."""
    model = variant.model()
    policy = model.policy.double()
    policy.flow.net = Constant(u)
    if variant.is_div:
        policy.bc_flow.net = Constant(v)
    for network in (policy.critic, policy.critic_target, policy.flow_critic):
        network.net = Linear(slope)
    return model


SLOPE = th.tensor([0.02, -0.05], dtype=th.float64)
U, V = th.tensor([0.1, 0.2], dtype=th.float64), th.tensor([-0.3, 0.05], dtype=th.float64)


@pytest.mark.parametrize("beta", [0.5, 4.0])
def test_optimum_of_the_divergence(beta: float) -> None:
    """P8: with a linear value, the velocity goes to v + (lambda / beta) dW/dx."""
    variant = Variant("div", beta=beta, flow_steps=4)
    model = with_closed_form(variant, U, V, SLOPE)
    batch, noise = random_batch(variant, 0)
    noise = noise._replace(start=0.1 * noise.start)  # all inside of the box, where the critics are linear as well
    batch = batch._replace(actions=0.1 * batch.actions)
    inner = model.inner_states(batch, noise)
    optimizer = th.optim.SGD(model.policy.flow.net.parameters(), lr=0.2 / beta)
    for _ in range(200):
        optimizer.zero_grad()
        model.policy_loss(batch, noise, inner)[0].backward()
        optimizer.step()
    th.testing.assert_close(model.policy.flow.net.u.detach(), V + inner.inverse_scale / beta * SLOPE, rtol=0, atol=1e-9)


@pytest.mark.parametrize("flow_steps", [1, 10, 50])
def test_weights_do_not_depend_on_the_number_of_steps(flow_steps: int) -> None:
    """P9: with a linear value, the gradient of the value term is -lambda dW/dx, whatever T is."""
    variant = Variant(fm_coef=0.0, flow_steps=flow_steps)
    model = with_closed_form(variant, U, V, SLOPE)
    batch, noise = random_batch(variant, 0)
    batch, noise = batch._replace(actions=0.1 * batch.actions), noise._replace(start=0.1 * noise.start)
    inner = model.inner_states(batch, noise)
    model.policy_loss(batch, noise, inner)[0].backward()
    th.testing.assert_close(model.policy.flow.net.u.grad, -inner.inverse_scale * SLOPE, rtol=1e-9, atol=0)


def test_one_step() -> None:
    """P10: with T = 1 the value term is -lambda Q(s, clip(eps + u(s, eps, 0)))."""
    variant = Variant(fm_coef=0.0, flow_steps=1)
    model = variant.model()
    batch, noise = random_batch(variant, 0, th.float32)
    policy = model.policy
    inner = model.inner_states(batch, noise)
    with th.no_grad():
        u = policy.velocity(policy.flow, batch.observations)(noise.start, th.zeros(BATCH, 1))
        q = policy.q_values(policy.critic, batch.observations, (noise.start + u).clamp(-1, 1)).mean(dim=0)
        loss = model.policy_loss(batch, noise, inner)[0]
    assert loss.item() == pytest.approx((-inner.inverse_scale * q.mean()).item(), rel=1e-5)


def test_flow_matching_alone() -> None:
    """P11: without a value DF-dir is behavior cloning: FQL's gradient times w_FM and the size of an action."""
    variant = Variant(fm_coef=3.0, action_dim=3)
    model = variant.model()
    model.policy.double()
    batch, noise = random_batch(variant, 0)
    inner = model.inner_states(batch, noise)._replace(inverse_scale=th.zeros((), dtype=th.float64))
    model.policy_loss(batch, noise, inner)[0].backward()
    found = [parameter.grad.clone() for parameter in model.policy.flow.parameters()]
    model.policy.zero_grad()
    velocity = model.policy.velocity(model.policy.flow, batch.observations)
    x_t = (1 - noise.t) * noise.x0 + noise.t * batch.actions
    (velocity(x_t, noise.t) - (batch.actions - noise.x0)).square().mean().backward()  # as FQL has it: a mean over all
    for first, parameter in zip(found, model.policy.flow.parameters(), strict=True):
        th.testing.assert_close(first, 3.0 * 3 * parameter.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["dir, weight given", "div"])
def test_the_scale_of_rewards(name: str) -> None:
    """P12: values a thousand times as large leave the gradient of the policy as it is."""
    variant, gradients, returns = VARIANTS[name], [], []
    batch, noise = random_batch(variant, 0)
    for factor in (1.0, 1000.0):
        model = variant.model()
        policy = model.policy.double()
        with th.no_grad():
            for network in (policy.critic, policy.critic_target, policy.flow_critic):
                for last in (network.net.weights[-1], network.net.biases[-1]):
                    last.mul_(factor)
        inner = model.inner_states(batch, noise)
        returns.append(inner.returns / factor)
        model.policy_loss(batch, noise, inner)[0].backward()
        gradients.append([parameter.grad for parameter in policy.flow.parameters()])
    for first, second in zip(*gradients, strict=True):
        th.testing.assert_close(first, second, rtol=1e-9, atol=1e-12)
    th.testing.assert_close(*returns, rtol=1e-9, atol=1e-12)


def test_the_end_of_an_episode() -> None:
    """P15: where the task ended the target is the reward; that of the lowest critic is not above that of their mean."""
    variant = Variant()
    batch, noise = random_batch(variant, 0, th.float32)
    model = variant.model()
    with th.no_grad():
        for masks, other in ((th.zeros(BATCH), th.ones(BATCH)), (th.ones(BATCH), th.ones(BATCH))):
            cut = batch._replace(masks=masks)
            later = cut._replace(next_observations=batch.next_observations + other[:, None])
            same = th.equal(model.critic_loss(cut, noise)[0], model.critic_loss(later, noise)[0])
            assert same == (not masks.any())
        lowest, mean = (model.end_value(batch, batch.actions) for model.q_agg in ("min", "mean"))
    assert (lowest <= mean).all() and (lowest < mean).any()


def test_share_of_own_states() -> None:
    """4.2: a share ``on_policy_share`` of the states is the policy's own; the others lie on straight paths to the data."""
    variant = Variant(flow_steps=4)
    model, n = variant.model(), 4000
    draw = Draw(0, th.float32)
    batch = draw.batch(2)
    rows = th.arange(n) % BATCH
    batch = each_column(batch, lambda column: column[rows])
    noise = model.draw_noise(n)
    for share in (0.0, 0.3, 1.0):
        model.on_policy_share = share
        inner = model.inner_states(batch, noise)
        own = inner.on_policy[:, 0]
        assert own.float().mean().item() == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / n))
        t = noise.k / 4
        straight = (1 - t) * noise.start + t * batch.actions
        th.testing.assert_close(inner.x[~own], straight[~own])
        first = noise.k[:, 0] == 0
        th.testing.assert_close(inner.x[first], noise.start[first])
        assert not own.any() or (inner.x - straight)[own & ~first].abs().mean().item() > 0.05
    invalid = batch._replace(valids=th.zeros(n))  # no actions of the data
    model.on_policy_share = 0.0
    assert model.inner_states(invalid, noise).on_policy.all()


def test_noise() -> None:
    """Standard normal numbers, uniform steps and times, all independent; a seed repeats them."""
    arguments = {"flow_steps": 7, "horizon_length": 2, "action_dim": 1}
    model, n = make_model(**arguments), 40_000
    noise = model.draw_noise(n)
    assert noise.k.shape == noise.t.shape == noise.on_policy.shape == (n, 1)
    counts = th.bincount(noise.k[:, 0], minlength=7)
    assert len(counts) == 7 and (counts - n / 7).abs().max().item() < 5 * math.sqrt(n / 7)
    for uniform in (noise.t, noise.on_policy):
        assert uniform.min().item() >= 0 and uniform.max().item() <= 1
        assert uniform.mean().item() == pytest.approx(0.5, abs=5 / math.sqrt(12 * n))
    normal = th.cat([noise.next_noise, noise.start, noise.x0], dim=1)
    assert normal.shape == (n, 6)
    assert normal.mean(dim=0).abs().max().item() < 5 / math.sqrt(n)
    assert (normal.std(dim=0) - 1).abs().max().item() < 5 / math.sqrt(2 * n)
    columns = th.cat([normal, noise.t, noise.on_policy, noise.k.float()], dim=1)
    assert (th.corrcoef(columns.T) - th.eye(9)).abs().max().item() < 5 / math.sqrt(n)
    for again, first in zip(make_model(**arguments).draw_noise(n), noise, strict=True):
        assert th.equal(again, first)


# Acting, arguments, files.

SAMPLERS = {"dir": ["flow"], "div": ["flow", "bc_flow"]}


@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers(name: str) -> None:
    """Section 5: T Euler steps on the grid of training, then clipped; ``deterministic`` means zero noise."""
    variant = VARIANTS[name]
    model = variant.model()
    reference, policy = Reference(model, variant), model.policy
    assert list(policy.samplers) == SAMPLERS[name] and policy.sampler == "flow"
    obs = random_batch(variant, 0, th.float32)[0].observations
    for sampler in SAMPLERS[name]:
        acting = policy.with_sampler(sampler)
        noise = th.randn(BATCH, variant.dim, generator=th.Generator().manual_seed(0))
        for given in (noise, th.zeros_like(noise)):
            with th.no_grad():
                expected = th.clip(reference.final(obs.double(), given.double(), network=sampler), -1, 1)
                th.testing.assert_close(acting.act(obs, given).double(), expected, rtol=0, atol=5e-5)
        np.testing.assert_allclose(acting.predict(obs.numpy(), deterministic=True)[0], expected.numpy(), atol=5e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"variant": "direction"}, "`variant` 'direction'; choose 'dir' .* or 'div'"),
        ({"fm_coef": -1.0}, "`fm_coef` is -1.0; it must not be negative"),
        ({"variant": "div", "beta": -0.1}, "`beta` is -0.1"),
        ({"beta": 1.0}, "`beta=1.0` is for DF-div: pass `variant='div'`"),
        ({"direction_coef": -1.0}, "`direction_coef` is -1.0"),
        ({"variant": "div", "direction_coef": 1.0}, "`direction_coef=1.0` is for DF-dir"),
        ({"on_policy_share": 1.5}, r"`on_policy_share` is 1.5; it must be in \[0, 1\]"),
        ({"flow_target": "lambda"}, "`flow_target` 'lambda'; choose 'mc' or 'td'"),
        ({"expectile": 1.0}, r"`expectile` is 1.0; it must be in \(0, 1\)"),
        ({"q_agg": "max"}, "'max'"),
        ({"flow_steps": 0}, "`flow_steps` is 0"),
        ({"encode_time_dim": 7}, "`encode_time_dim` is 7"),
    ],
    ids=str,
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    """The constructor raises an error that names the argument and its value."""
    with pytest.raises(ValueError, match=message):
        make_model(**arguments)


@pytest.mark.parametrize("name", ["dir, td", "dir, expectile", "div, weights given"])
def test_a_saved_variant(name: str, tmp_path: Path) -> None:
    """A loaded model is the same variant, with lambda_hat and optimizer, and its updates are equal."""
    variant = VARIANTS[name]
    model = variant.model()
    model.update(*random_batch(variant, 0, th.float32))
    model.save(tmp_path / "model")
    loaded = DecisionFlow.load(tmp_path / "model", device="cpu")
    assert list(loaded.policy.samplers) == list(model.policy.samplers)
    assert loaded.policy.inverse_scale.item() == model.policy.inverse_scale.item() > 0
    for argument in ("variant", "fm_coef", "beta", "flow_steps", "q_agg", "flow_target", "expectile", "targets"):
        assert getattr(loaded, argument) == getattr(model, argument), argument
    if variant.variant == "dir":
        with pytest.raises(ValueError, match=r"`beta=2.0` is for DF-div"):
            DecisionFlow.load(tmp_path / "model", beta=2.0, device="cpu")
    for each in (model, loaded):
        each.update(*random_batch(variant, 1, th.float32))
    for (parameter, first), (_, second) in zip(model.policy.named_parameters(), loaded.policy.named_parameters(), strict=True):
        assert th.equal(first, second), parameter


def test_running_scale() -> None:
    """4.5: lambda_hat starts at the first lambda, and then moves by a hundredth of the way."""
    variant = Variant("div")
    model = variant.model()
    batch, noise = random_batch(variant, 0, th.float32)
    assert model.policy.inverse_scale.item() == 0
    model.policy.inverse_scale.fill_(3.0)
    inner = copy.deepcopy(model).inner_states(batch, noise)
    expected = 0.99 * 3.0 + 0.01 * inner.inverse_scale.item()
    assert inner.running_inverse_scale.item() == pytest.approx(expected, rel=1e-6)
    assert model.policy.inverse_scale.item() == 3.0  # a loss changes nothing
    assert model.update(batch, noise)["inverse_scale"].item() == model.policy.inverse_scale.item() == pytest.approx(expected)


# A bandit: what is learned, from scratch and all together.


@dataclass(frozen=True)
class Bandit:
    """
    Actions around some modes, each of which has its share of the data and its reward. ``slope`` is what is lost by the
    square of the distance from a mode: without it nothing tells a critic that between two modes there is nothing good.
    """

    modes: tuple[tuple[float, float], ...]
    shares: tuple[float, ...]
    rewards: tuple[float, ...]
    std: float
    noise: float
    near: float
    slope: float = 0.0

    def data(self, n: int, seed: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(seed)
        mode = rng.choice(len(self.modes), size=n, p=self.shares)
        actions = np.clip(np.array(self.modes)[mode] + self.std * rng.normal(size=(n, 2)), -1, 1)
        lost = self.slope * np.square(actions - np.array(self.modes)[mode]).sum(axis=1)
        rewards = np.array(self.rewards)[mode] - lost + self.noise * rng.normal(size=n)
        return dict(observations=np.zeros((n, 1)), actions=actions, rewards=rewards, terminations=np.ones(n))

    def model(self, seed: int, **kwargs: Any) -> DecisionFlow:
        shared = dict(dataset=self.data(10_000, seed), seed=seed, device="cpu", offline_log_interval=100_000)
        return DecisionFlow("FlowPolicy", box_env(1, 2), **shared, **kwargs)

    def shares_of(self, model: DecisionFlow, sampler: str, n: int = 4000) -> np.ndarray:
        """The share of each mode among samples, counted where they are near it."""
        noise = th.randn(n, 2, generator=th.Generator().manual_seed(0))
        with th.no_grad():
            actions = model.policy.with_sampler(sampler).act(th.zeros(n, 1), noise).numpy()
        distances = np.linalg.norm(actions[:, None] - np.array(self.modes), axis=2)
        nearest = np.where(distances.min(axis=1) < self.near, distances.argmin(axis=1), len(self.modes))
        return np.bincount(nearest, minlength=len(self.modes) + 1)[:-1] / n


#: Two ways, and the better one is the rarer.
TWO_WAYS = Bandit(((-0.5, 0.0), (0.5, 0.0)), (0.7, 0.3), (0.0, 1.0), std=0.12, noise=0.1, near=0.3, slope=4.0)
SMALL_AND_FAST: dict[str, Any] = {
    **dict(learning_rate=3e-3, batch_size=256, tau=0.02),
    "policy_kwargs": {"net_arch": (64, 64), "encode_time_dim": 0},
}


def check_two_ways(fitted: np.ndarray, improved: np.ndarray) -> None:
    """BC keeps both modes with their shares; improvement prefers the better, rarer mode; few actions are elsewhere."""
    error = math.sqrt(0.25 / 4000)
    assert fitted.sum() > 0.75 + 4 * error and improved.sum() > 0.85 + 4 * error
    assert abs(fitted[1] / fitted.sum() - 0.3) < 0.08 + 4 * error
    assert improved[1] / improved.sum() > 0.8 + 4 * error


@pytest.mark.nightly
@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_the_better_of_two_ways_dir(seed: int) -> None:
    """DF-dir: a large weight gives behavior cloning, a small one improves on it."""
    model = TWO_WAYS.model(seed, fm_coef=100.0, **SMALL_AND_FAST)
    model.learn(600)
    fitted = TWO_WAYS.shares_of(model, "flow")
    model.fm_coef = 0.1
    model.learn(500, reset_num_timesteps=False)
    check_two_ways(fitted, TWO_WAYS.shares_of(model, "flow"))


@pytest.mark.nightly
@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_the_better_of_two_ways_div(seed: int) -> None:
    """DF-div: the BC flow fits the data, and the other flow improves on it."""
    model = TWO_WAYS.model(seed, variant="div", beta=0.5, **SMALL_AND_FAST)
    model.learn(900)
    check_two_ways(TWO_WAYS.shares_of(model, "bc_flow"), TWO_WAYS.shares_of(model, "flow"))


#: Four ways, of which the best is the rarest; nothing but the data tells that between them there is nothing good.
FOUR_WAYS = Bandit(
    ((0.6, 0.6), (-0.6, 0.6), (-0.6, -0.6), (0.6, -0.6)),
    shares=(0.1, 0.2, 0.3, 0.4),
    rewards=(1.0, 0.6, 0.3, 0.0),
    std=0.06,
    noise=0.05,
    near=0.25,
)


@pytest.mark.nightly
@pytest.mark.slow
def test_the_best_of_four_ways() -> None:
    """P16: with beta 0.3, DF-div has more than 0.8 of the return of the best way, and keeps to the ways of the data."""
    model = FOUR_WAYS.model(0, variant="div", beta=0.3, **SMALL_AND_FAST)
    model.learn(2000)
    clone, improved = (FOUR_WAYS.shares_of(model, sampler) for sampler in ("bc_flow", "flow"))
    error = math.sqrt(0.25 / 4000)
    assert improved @ FOUR_WAYS.rewards > 0.8 + 4 * error and improved.sum() > 0.85
    assert clone @ FOUR_WAYS.rewards < 0.4 and clone.sum() > 0.7  # the clone knows of no rewards


@pytest.mark.nightly
@pytest.mark.slow
def test_a_flow_that_is_held_to_its_clone() -> None:
    """P17: with beta 1000, DF-div takes each way as often as its clone does, which is as often as the data."""
    # With a learning rate that falls to zero: both flows tremble as long as they are trained.
    settings = {**SMALL_AND_FAST, "learning_rate": lambda progress: 3e-3 * progress}
    model = FOUR_WAYS.model(0, variant="div", beta=1e3, **settings)
    model.learn(1500)
    clone, held = (FOUR_WAYS.shares_of(model, sampler) for sampler in ("bc_flow", "flow"))
    assert np.abs(held - clone).max() < 0.05
    assert np.abs(clone / clone.sum() - FOUR_WAYS.shares).max() < 0.08 and clone.sum() > 0.7
