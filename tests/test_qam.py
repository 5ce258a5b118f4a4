"""
QAM against a second implementation, in all its variants: the equations of its specification, written out slowly in float64.

``Reference`` shares no code with the package, see ``transcription.py``. It carries the adjoint by explicit Jacobian matrices
of the base field, multiplied out layer by layer. Section numbers are those of the method's specification, U1 .. U13 its
tests; those of the adjoint alone are in ``test_adjoint.py``, those of critics in ``test_critics.py``.
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
from transcription import BATCH, Draw, Transcription, assert_single_precision, box_env, nightly_except, parameters_of, shake

from sb3_flow import QAM
from sb3_flow.common import networks
from sb3_flow.common.type_aliases import Batch
from sb3_flow.qam import QAMPolicy
from sb3_flow.qam.qam import QAMNoise


@pytest.fixture(autouse=True)
def size_of_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors as small as here would take PyTorch's GELU; compare the fast one."""
    monkeypatch.setattr(networks, "SMALL", 0)


def make_model(action_dim: int = 2, n_critics: int = 2, best_of_n: int = 1, **kwargs: Any) -> QAM:
    policy_kwargs = {"net_arch": (24, 16), "n_critics": n_critics, "best_of_n": best_of_n}
    policy_kwargs |= kwargs.pop("policy_kwargs", {})
    return QAM(
        "FlowPolicy", box_env(action_dim=action_dim), policy_kwargs=policy_kwargs, device="cpu", **{"seed": 0, **kwargs}
    )


# The second implementation.


@dataclass
class Variant:
    action_dim: int = 2
    horizon_length: int = 1
    inv_temp: float | None = 0.7
    kl_budget: float | None = None
    rho: float = 0.5
    flow_steps: int = 10
    fql_alpha: float = 0.0
    edit_scale: float = 0.0
    target_entropy: float | str = "auto"
    max_grad_norm: float | None = 1.0
    clip_adj: bool = True
    target_actor: bool = True
    use_target_grad: bool = True
    n_critics: int = 2
    best_of_n: int = 1
    gamma: float = 0.99
    tau: float = 0.005
    learning_rate: float = 3e-4

    @property
    def dim(self) -> int:
        """Size of a chunk of actions."""
        return self.action_dim * self.horizon_length

    def model(self) -> QAM:
        model = make_model(**asdict(self))
        shake(model, 0.25)
        return model


VARIANTS = {
    "plain": Variant(),
    "FQL": Variant(fql_alpha=3.0),
    "EDIT": Variant(edit_scale=0.3),
    "EDIT, entropy given": Variant(edit_scale=0.8, target_entropy=-2.5, flow_steps=3),
    "chunks": Variant(horizon_length=3, gamma=0.9, n_critics=3),
    "chunks, EDIT": Variant(horizon_length=2, edit_scale=0.2, gamma=0.9, flow_steps=4),
    "clipped hard": Variant(max_grad_norm=0.02, action_dim=3),
    "hardly clipped": Variant(max_grad_norm=1e9),
    "not clipped": Variant(max_grad_norm=None),
    "no pessimism": Variant(rho=0.0, n_critics=3),
    "adjoint of actions as they are": Variant(clip_adj=False),
    "base is the clone": Variant(target_actor=False),
    "critics give the adjoint": Variant(use_target_grad=False),
    "best of three": Variant(best_of_n=3, n_critics=3),
    "best of three, FQL": Variant(best_of_n=3, fql_alpha=0.5, rho=1.5, flow_steps=1),
    "best of two, EDIT": Variant(best_of_n=2, edit_scale=0.5, action_dim=1, flow_steps=5),
    "fast": Variant(tau=0.3, learning_rate=0.02, inv_temp=10.0),
    "no temperature": Variant(inv_temp=0.0),
    "budget": Variant(inv_temp=None, kl_budget=1.0),
    "budget, FQL": Variant(inv_temp=None, kl_budget=0.3, fql_alpha=3.0),
    "budget, EDIT, chunks": Variant(inv_temp=None, kl_budget=2.5, edit_scale=0.3, horizon_length=3, gamma=0.9),
    "budget of all": Variant(inv_temp=None, kl_budget=1000.0, flow_steps=4),
}
#: Those of which parameters are compared without `--all`, too; losses and gradients are for all.
OFTEN = (
    "plain",
    "EDIT",
    "chunks",
    "not clipped",
    "fast",
    "base is the clone",
    "best of three, FQL",
    "budget",
    "budget, EDIT, chunks",
)


class Reference(Transcription):
    """Sections 4 and 5, literally."""

    targets: ClassVar[dict[str, str]] = {"critic_target": "critic", "bc_flow_target": "bc_flow"}
    variant: Variant

    def __init__(self, model: QAM, variant: Variant) -> None:
        super().__init__(model, variant)
        self.owners = {"critic": "critic_loss", "bc_flow": "bc_flow_loss", "flow": "adjoint_matching_loss"}
        if variant.fql_alpha > 0:
            self.owners["actor"] = "actor_loss"
        if variant.edit_scale > 0:
            self.owners |= {"edit": "actor_loss", "log_ent_coef": "actor_loss"}
        self.kl_coef, self.kl_average = 1.0, 0.0

    def field(self, network: str, s: th.Tensor, x: th.Tensor, t: float) -> th.Tensor:
        return self.mlp(network, s, x, th.full((len(x), 1), t, dtype=th.float64))

    def jacobians(self, network: str, s: th.Tensor, x: th.Tensor, t: float) -> th.Tensor:
        """``[b, i, j]`` is the derivative of component ``i`` with respect to ``x_j``: the chain rule, matrix by matrix."""
        hidden = th.cat([s, x, th.full((len(x), 1), t, dtype=th.float64)], dim=1)
        columns = slice(s.shape[1], s.shape[1] + x.shape[1])
        jacobian = th.eye(hidden.shape[1], dtype=th.float64)[:, columns].expand(len(x), -1, -1)
        for layer in range(3):
            weight = self.parameters[f"{network}.net.layers.{layer}.weight"]
            hidden = hidden @ weight.T + self.parameters[f"{network}.net.layers.{layer}.bias"]
            jacobian = weight @ jacobian
            if layer < 2:
                c = math.sqrt(2 / math.pi)
                tanh = th.tanh(c * (hidden + 0.044715 * hidden**3))
                slope = 0.5 * (1 + tanh) + 0.5 * hidden * (1 - tanh**2) * c * (1 + 3 * 0.044715 * hidden**2)
                jacobian = slope[:, :, None] * jacobian
                hidden = self.gelu(hidden)
        return jacobian

    def qs(self, network: str, s: th.Tensor, a: th.Tensor) -> list[th.Tensor]:
        return [self.q(network, k, s, a) for k in range(self.variant.n_critics)]

    def mean_q(self, network: str, s: th.Tensor, a: th.Tensor) -> th.Tensor:
        return sum(self.qs(network, s, a)) / self.variant.n_critics

    # Section 5

    def flow_action(self, s: th.Tensor, z: th.Tensor, network: str = "flow") -> th.Tensor:
        end = self.euler(lambda x, t: self.mlp(network, s, x, t), z, self.variant.flow_steps)
        return th.clip(end, -1, 1)

    def edit(self, s: th.Tensor, a: th.Tensor, noise: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """Edited actions, and the logarithm of the density of the edit before it is scaled."""
        outputs, dim = self.mlp("edit", s, a), self.variant.dim
        mean, std = outputs[:, :dim], th.exp(th.clip(outputs[:, dim:], -20, 2))
        u = mean + std * noise
        log_normal = -((u - mean) ** 2) / (2 * std**2) - th.log(std * math.sqrt(2 * math.pi))
        log_prob = (log_normal + 2 * th.log(th.cosh(u))).sum(dim=1)  # 1 - tanh^2 = cosh^-2
        return th.clip(a + self.variant.edit_scale * th.tanh(u), -1, 1), log_prob

    def act(self, s: th.Tensor, noise: th.Tensor) -> th.Tensor:
        if self.variant.fql_alpha > 0:
            return th.clip(self.mlp("actor", s, noise), -1, 1)
        if self.variant.edit_scale > 0:
            z, edit_noise = noise[:, : self.variant.dim], noise[:, self.variant.dim :]
            return self.edit(s, self.flow_action(s, z), edit_noise)[0]
        return self.flow_action(s, noise)

    def act_best(self, s: th.Tensor, noise: th.Tensor) -> th.Tensor:
        """Of ``best_of_n`` actions the one that the critics, not their targets, value most."""
        chosen = []
        for b in range(len(s)):
            candidates = [self.act(s[b : b + 1], noise[b : b + 1, n]) for n in range(self.variant.best_of_n)]
            scores = [self.mean_q("critic", s[b : b + 1], a).item() for a in candidates]
            chosen.append(candidates[scores.index(max(scores))])
        return th.cat(chosen)

    # Section 4

    def critic_loss(self, batch: Batch, noise: QAMNoise) -> th.Tensor:
        """4.2"""
        k_max, total = self.variant.n_critics, th.zeros((), dtype=th.float64)
        with th.no_grad():
            next_actions = self.act_best(batch.next_observations, noise.next_noise)
            next_qs = self.qs("critic_target", batch.next_observations, next_actions)
            mean = sum(next_qs) / k_max
            std = th.sqrt(sum((q - mean) ** 2 for q in next_qs) / k_max)
            y = batch.rewards + batch.discounts * batch.masks * (mean - self.variant.rho * std)
        for q in self.qs("critic", batch.observations, batch.actions):
            total = total + (batch.valids * (q - y) ** 2).sum()
        return total / (BATCH * k_max)

    def bc_flow_loss(self, batch: Batch, noise: QAMNoise) -> th.Tensor:
        """4.3"""
        x_t = (1 - noise.t) * noise.x0 + noise.t * batch.actions
        error = self.mlp("bc_flow", batch.observations, x_t, noise.t) - (batch.actions - noise.x0)
        return (batch.valids[:, None] * error**2).sum() / (BATCH * self.variant.dim)

    def adjoint_matching_loss(self, batch: Batch, noise: QAMNoise) -> th.Tensor:
        """4.4"""
        variant, s = self.variant, batch.observations
        base = "bc_flow_target" if variant.target_actor else "bc_flow"
        n, h = variant.flow_steps, 1 / variant.flow_steps
        sigma = [math.sqrt(2 * (n - i + 1) / (i + 1)) for i in range(n)]
        with th.no_grad():
            path = [noise.path[0]]
            for i in range(n - 1):
                x, t = path[i], i / n
                drift = 2 * self.field("flow", s, x, t) - x / ((i + 1) / n)
                path.append(x + h * drift + math.sqrt(h) * sigma[i] * noise.path[i + 1])
            path.append(path[n - 1] + h * self.field(base, s, path[n - 1], (n - 1) / n))
        self.path = path
        end = path[n].clone().requires_grad_()
        inside = th.clip(end, -1, 1) if variant.clip_adj else end
        value = self.mean_q("critic_target" if variant.use_target_grad else "critic", s, inside)
        inv_temp = 1.0 if variant.inv_temp is None else variant.inv_temp
        g = {n: -inv_temp * th.autograd.grad(value.sum(), end)[0]}
        with th.no_grad():
            for i in reversed(range(n)):
                jacobian = self.jacobians(base, s, path[i], (i + 1) / n)
                pulled_back = th.einsum("bij,bi->bj", jacobian, g[i + 1])
                g[i] = i / (i + 1) * g[i + 1] + 2 * h * pulled_back
        total, self.kl = th.zeros((), dtype=th.float64), 0.0
        for i in range(n):
            control = self.field("flow", s, path[i], i / n) - self.field(base, s, path[i], i / n).detach()
            scaled = sigma[i] if variant.kl_budget is None else sigma[i] / math.sqrt(3 * self.kl_coef)
            total = total + ((2 / scaled * control + scaled * g[i]) ** 2).sum()
            self.kl += 2 * h / sigma[i] ** 2 * (control**2).sum().item() / BATCH / variant.horizon_length
        return total / BATCH

    def dual_step(self) -> None:
        """TRQAM's, after the losses of an update."""
        budget = self.variant.kl_budget
        if budget is not None:
            self.kl_average = 0.9 * self.kl_average + 0.1 * min(self.kl, 2 * budget)
            self.kl_coef = min(max(self.kl_coef + 0.01 * (self.kl_average - budget), 0.01), 100.0)

    def actor_loss(self, batch: Batch, noise: QAMNoise) -> th.Tensor:
        """4.5 and 4.6; the critics' own gradient is dropped in ``gradients``."""
        variant, s = self.variant, batch.observations
        flow_actions = self.flow_action(s, noise.z).detach()
        if variant.fql_alpha > 0:
            a = self.mlp("actor", s, noise.z)
            distance = ((a - flow_actions) ** 2).sum() / (BATCH * variant.dim)
            return variant.fql_alpha * distance - self.mean_q("critic", s, th.clip(a, -1, 1)).mean()
        a, log_prob = self.edit(s, flow_actions, noise.edit)
        temperature = th.exp(self.parameters["log_ent_coef"])
        target = -0.5 * variant.dim if variant.target_entropy == "auto" else variant.target_entropy
        entropy = -log_prob.detach().mean()
        q = self.mean_q("critic", s, a).mean()
        return -q + (temperature.detach() * log_prob).mean() + temperature * (entropy - target)

    def losses(self, batch: Batch, noise: QAMNoise) -> dict[str, th.Tensor]:
        losses = {
            "critic_loss": self.critic_loss(batch, noise),
            "bc_flow_loss": self.bc_flow_loss(batch, noise),
            "adjoint_matching_loss": self.adjoint_matching_loss(batch, noise),
        }
        if "actor_loss" in self.owners.values():
            losses["actor_loss"] = self.actor_loss(batch, noise)
        return losses | {"loss": sum(losses.values())}

    def clipped(self, gradients: dict[str, th.Tensor]) -> tuple[dict[str, th.Tensor], float]:
        """3: one factor for the gradients of all networks. Also their norm before."""
        norm = math.sqrt(sum((gradient**2).sum().item() for gradient in gradients.values()))
        limit = self.variant.max_grad_norm
        factor = 1.0 if limit is None or norm <= limit else limit / norm
        return {name: factor * gradient for name, gradient in gradients.items()}, norm

    def update(self, batch: Batch, noise: QAMNoise) -> None:
        """4.7"""
        self.step(self.clipped(self.gradients(self.losses(batch, noise)))[0])
        self.dual_step()


def random_batch(variant: Variant, seed: int, dtype: th.dtype = th.float64) -> tuple[Batch, QAMNoise]:
    draw, dim = Draw(seed, dtype), variant.dim
    batch = draw.batch(dim, variant.gamma, n_steps=variant.horizon_length, valid=0.6 if variant.horizon_length > 1 else 1.0)
    noise = QAMNoise(
        next_noise=draw.normal(BATCH, variant.best_of_n, 2 * dim if variant.edit_scale > 0 else dim),
        x0=draw.normal(BATCH, dim),
        t=draw.uniform(BATCH, 1),
        path=draw.normal(variant.flow_steps, BATCH, dim),
        z=draw.normal(BATCH, dim),
        edit=draw.normal(BATCH, dim),
    )
    return batch, noise


def model_losses(model: QAM, batch: Batch, noise: QAMNoise) -> dict[str, th.Tensor]:
    losses = {
        "critic_loss": model.critic_loss(batch, noise)[0],
        "bc_flow_loss": model.bc_flow_loss(batch, noise)[0],
        "adjoint_matching_loss": model.adjoint_matching_loss(batch, noise)[0],
    }
    if model.fql_alpha > 0:
        losses["actor_loss"] = model.one_step_loss(batch, noise)[0]
    if model.edit_scale > 0:
        losses["actor_loss"] = model.edit_loss(batch, noise)[0]
    return losses | {"loss": model.loss(batch, noise)[0]}


def both(variant: Variant) -> tuple[QAM, Reference]:
    """The package's model in float64, and the transcription with the same parameters."""
    model = variant.model()
    model.policy.double()
    return model, Reference(model, variant)


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_losses_and_gradients(variant: Variant) -> None:
    """4.2 to 4.6: each loss, and its gradient to every parameter, in float64."""
    model, reference = both(variant)
    batch, noise = random_batch(variant, seed=0)
    expected, found = reference.losses(batch, noise), model_losses(model, batch, noise)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(value.item(), rel=1e-12, abs=1e-12), name

    # The batch must show what clipping does: some coordinates outside of the box, some inside.
    for actions in (reference.path[-1], reference.flow_action(batch.observations, noise.z).clip(-0.999, 0.999) / 0.999):
        assert 0.05 < (actions.abs() >= 1).double().mean().item() < 0.95

    found["loss"].backward()
    reference.assert_gradients(model, expected)


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_losses_in_single_precision(variant: Variant) -> None:
    """The same losses in float32, as the package computes them."""
    model = variant.model()
    expected = Reference(model, variant).losses(*random_batch(variant, seed=0))
    found = model_losses(model, *random_batch(variant, seed=0, dtype=th.float32))
    assert_single_precision(found, expected)


@pytest.mark.parametrize("variant", nightly_except(OFTEN, VARIANTS))
def test_parameters_after_updates(variant: Variant) -> None:
    """4.7: all parameters after five updates, those of both targets too, in float64."""
    model, reference = both(variant)
    start = parameters_of(model)
    for seed in range(5):
        batch, noise = random_batch(variant, seed)
        metrics = model.update(batch, noise)
        reference.update(batch, noise)
        assert metrics["kl"].item() == pytest.approx(reference.kl, rel=1e-9)
        if variant.kl_budget is not None:
            assert metrics["kl_average"].item() == pytest.approx(reference.kl_average, rel=1e-9)
            assert metrics["kl_coef"].item() == pytest.approx(reference.kl_coef, rel=1e-9)
            assert reference.kl_coef != 1
    reference.assert_parameters(model, start)
    if variant.kl_budget is not None:
        assert model.policy.kl_coef.item() == pytest.approx(reference.kl_coef, rel=1e-12)


@pytest.mark.parametrize("name", ["FQL", "EDIT", "clipped hard", "hardly clipped", "not clipped"])
def test_update_reports_the_losses(name: str) -> None:
    """The metrics are the losses at the parameters before the step, and the norm of all gradients before they are clipped."""
    variant = VARIANTS[name]
    model, reference = both(variant)
    batch, noise = random_batch(variant, seed=0)
    expected = reference.losses(batch, noise)
    norm = reference.clipped(reference.gradients(expected))[1]
    metrics = model.update(batch, noise)
    for loss in expected.keys() - {"loss"}:
        assert metrics[loss].item() == pytest.approx(expected[loss].item(), rel=1e-12)
    if variant.max_grad_norm is None:
        assert "grad_norm" not in metrics
    else:
        assert metrics["grad_norm"].item() == pytest.approx(norm, rel=1e-9)
        assert (norm > variant.max_grad_norm) == (name != "hardly clipped")
        clipped = [p.grad for p in model.policy.parameters() if p.grad is not None]
        now = math.sqrt(sum((gradient**2).sum().item() for gradient in clipped))
        assert now == pytest.approx(min(norm, variant.max_grad_norm), rel=1e-9)


# Where gradients go.

TERMS: dict[str, tuple[str, set[str], Variant]] = {
    "L_Q": ("critic_loss", {"critic"}, Variant()),
    "L_Q, FQL": ("critic_loss", {"critic"}, Variant(fql_alpha=1.0)),
    "L_Q, EDIT": ("critic_loss", {"critic"}, Variant(edit_scale=0.3)),
    "L_BC": ("bc_flow_loss", {"bc_flow"}, Variant()),
    "L_AM": ("adjoint_matching_loss", {"flow"}, Variant()),
    "L_AM, base is the clone": ("adjoint_matching_loss", {"flow"}, Variant(target_actor=False, use_target_grad=False)),
    "L_FQL": ("one_step_loss", {"actor"}, Variant(fql_alpha=1.0)),
    "L_EDIT": ("edit_loss", {"edit", "log_ent_coef"}, Variant(edit_scale=0.3)),
}


@pytest.mark.parametrize("pixels", [False, True], ids=["vectors", "pixels"])
@pytest.mark.parametrize("term", TERMS)
def test_gradient_isolation(term: str, pixels: bool) -> None:
    """U8: each term moves one network, its encoder included (the edit: its temperature, too), and never a target."""
    loss, owners, variant = TERMS[term]
    batch, noise = random_batch(variant, 0, th.float32)
    if pixels:
        env = AnySpaces(spaces.Box(0, 255, (1, 8, 8), np.uint8), spaces.Box(-1.0, 1.0, (2,)))
        policy_kwargs = {"net_arch": [8], "n_critics": 2, "features_extractor_kwargs": {"cnn_output_dim": 6}}
        arguments = {
            name: value for name, value in asdict(variant).items() if name not in ("action_dim", "n_critics", "best_of_n")
        }
        model = QAM("FlowPolicy", env, policy_kwargs=policy_kwargs, device="cpu", seed=0, **arguments)
        images = th.randint(0, 256, (BATCH, 1, 8, 8), generator=th.Generator().manual_seed(0), dtype=th.uint8)
        batch = batch._replace(observations=images, next_observations=images.flip(2))
    else:
        model = variant.model()
    getattr(model, loss)(batch, noise)[0].backward()
    moved = set()
    for name, parameter in model.policy.named_parameters():
        network = name.split(".")[0]
        if network in owners:
            assert parameter.grad is not None and parameter.grad.abs().max().item() > 0, name
            moved.add(network)
        else:
            assert parameter.grad is None or not parameter.grad.any(), name
    assert moved == owners


@pytest.mark.parametrize("name", ["plain", "FQL", "EDIT"])
def test_networks(name: str) -> None:
    """Section 3: the targets start as exact copies, the flow does not, and one optimizer holds all but the targets."""
    model = make_model(**{k: v for k, v in asdict(VARIANTS[name]).items() if k in ("fql_alpha", "edit_scale")})
    policy, nets = model.policy, {parameter.split(".")[0] for parameter, _ in model.policy.named_parameters()}
    trained = {"critic", "bc_flow", "flow"} | {"plain": set(), "FQL": {"actor"}, "EDIT": {"edit", "log_ent_coef"}}[name]
    assert nets == trained | {"critic_target", "bc_flow_target"}
    (group,) = policy.optimizer.param_groups
    held = {id(parameter) for parameter in group["params"]}
    assert held == {id(p) for parameter, p in policy.named_parameters() if parameter.split(".")[0] in trained}
    for target, net in (("critic_target", "critic"), ("bc_flow_target", "bc_flow")):
        pairs = zip(getattr(policy, target).parameters(), getattr(policy, net).parameters(), strict=True)
        assert all(th.equal(first, second) and first.data_ptr() != second.data_ptr() for first, second in pairs)
    assert not th.equal(policy.flow.net.layers[0].weight, policy.bc_flow.net.layers[0].weight)
    if name == "EDIT":
        assert policy.log_ent_coef.item() == 0


# The trust region.


def test_dual_descent() -> None:
    """By hand: budget .5, divergences 3 (counts as 1) and .2: averages .1 and .11, so that the coefficient falls a little."""
    model = make_model(kl_budget=0.5)
    assert (model.policy.kl_coef.item(), model.policy.kl_average.item()) == (1.0, 0.0)
    for kl, average, coef in ((3.0, 0.1, 0.996), (0.2, 0.11, 0.9921)):
        metrics = model.update_kl_coef(th.tensor(kl), 0.5)
        assert metrics["kl_average"].item() == pytest.approx(average) == pytest.approx(model.policy.kl_average.item())
        assert metrics["kl_coef"].item() == pytest.approx(coef) == pytest.approx(model.policy.kl_coef.item())
    earlier = metrics["kl_coef"].clone()
    for start, average, bound in ((99.999, 1000.0, 100.0), (0.0101, 0.0, 0.01)):
        model.policy.kl_coef.fill_(start)
        model.policy.kl_average.fill_(average)
        model.update_kl_coef(th.tensor(average), 0.5)
        assert model.policy.kl_coef.item() == pytest.approx(bound)
    assert th.equal(metrics["kl_coef"], earlier)  # what was logged does not change later


def test_plain_model_has_no_coefficient() -> None:
    """Its policy is the one that files of earlier versions hold; the divergence is logged all the same."""
    model = make_model()
    assert not [name for name in model.policy.state_dict() if name.startswith("kl")] and model.inv_temp == 1.0
    metrics = model.update(*random_batch(Variant(), 0, th.float32))
    assert metrics["kl"].item() > 0 and "kl_coef" not in metrics


def test_divergence_of_a_chunk_is_per_action() -> None:
    """The same control in each of three actions: a third of the sum."""
    model = make_model(horizon_length=3, action_dim=1, flow_steps=5)
    with th.no_grad():
        for network in ("bc_flow_target", "flow"):
            last = getattr(model.policy, network).net.layers[-1]
            last.weight.zero_()
            last.bias.fill_(0.4 if network == "flow" else 0.1)
    batch, noise = random_batch(Variant(horizon_length=3, action_dim=1, flow_steps=5), 0, th.float32)
    kl = model.adjoint_matching_loss(batch, noise)[1]["kl"].item()
    expected = sum(2 / 5 / (2 * (5 - i + 1) / (i + 1)) * 0.3**2 for i in range(5))
    assert kl == pytest.approx(expected, rel=1e-5)


# Closed forms.


def test_outside_of_the_box() -> None:
    """U9: where a path ends outside the box, its adjoint is 0 in that coordinate, exactly; not so without ``clip_adj``."""
    actions = th.tensor([[1.5, 0.3], [-0.2, -1.01], [0.9, 0.1], [-3.0, 2.0]])
    outside = actions.abs() > 1
    for clip_adj in (True, False):
        model = Variant(clip_adj=clip_adj).model()
        batch = random_batch(Variant(), 0, th.float32)[0]
        gradient = model.action_gradient(batch._replace(observations=batch.observations[:4]), actions)
        assert (gradient[~outside] != 0).all()
        assert (gradient[outside] == 0).all() if clip_adj else (gradient[outside] != 0).all()


def with_edit(mean: float, log_std: float, **kwargs: Any) -> QAM:
    """A model whose edit has one mean and deviation, whatever it is given."""
    model = make_model(**{"action_dim": 1, "edit_scale": 0.3, **kwargs})
    with th.no_grad():
        last = model.policy.edit.net.layers[-1]
        last.weight.zero_()
        last.bias.copy_(th.tensor([mean, log_std]).repeat_interleave(len(last.bias) // 2))
    return model


@pytest.mark.parametrize("edit_scale", [0.3, 1.0])
def test_density_of_an_edit(edit_scale: float) -> None:
    """U12: mean .2, std .5, u = .7: e = .604368, of log-density -.271251, whatever it is scaled by (pitfall 12)."""
    policy = with_edit(0.2, math.log(0.5), edit_scale=edit_scale).policy
    actions, log_prob = policy.edited(th.zeros(1, 4), th.tensor([[-0.1]]), th.ones(1, 1))
    assert actions.item() == pytest.approx(-0.1 + edit_scale * 0.604368, abs=1e-6)
    assert log_prob.shape == (1,) and log_prob.item() == pytest.approx(-0.271251, abs=1e-6)


@pytest.mark.parametrize("mean", [-60.0, 60.0])
@pytest.mark.parametrize("log_std", [-30.0, 0.0, 30.0])
def test_extreme_edits(mean: float, log_std: float) -> None:
    """Where tanh is 1 in float32, densities and gradients are finite; deviations are bounded to [e^-20, e^2]."""
    model = with_edit(mean, log_std)
    policy, noise = model.policy, th.tensor([[1.0], [-1.0]])
    actions, log_prob = policy.edited(th.zeros(2, 4), th.zeros(2, 1), noise)
    assert actions.flatten().tolist() == pytest.approx([math.copysign(0.3, mean)] * 2)
    bounded = min(max(log_std, -20.0), 2.0)
    u = mean + math.exp(bounded) * noise.flatten()
    expected = -0.5 - bounded - 0.5 * math.log(2 * math.pi) - 2 * (math.log(2) - u.abs())  # log cosh u ~ |u| - log 2
    th.testing.assert_close(log_prob, expected, rtol=1e-5, atol=1e-3)
    model.edit_loss(*random_batch(Variant(action_dim=1, edit_scale=0.3), 0, th.float32))[0].backward()
    assert all(parameter.grad.isfinite().all() for parameter in policy.edit.parameters())


@pytest.mark.parametrize(
    ("horizon_length", "target_entropy", "target"), [(1, "auto", -0.5), (4, "auto", -2.0), (1, 0.25, 0.25)]
)
def test_target_entropy(horizon_length: int, target_entropy: float | str, target: float) -> None:
    """4.6: the temperature falls where the entropy is above its target, by ``eta (H - target)``; ``"auto"``: -D / 2."""
    arguments = {"horizon_length": horizon_length, "target_entropy": target_entropy}
    model = with_edit(0.0, 0.0, **arguments)
    with th.no_grad():
        model.policy.log_ent_coef.fill_(math.log(0.2))
    batch, noise = random_batch(Variant(action_dim=1, edit_scale=0.3, **arguments), 0, th.float32)
    loss, metrics = model.edit_loss(batch, noise)
    loss.backward()
    assert metrics["ent_coef"].item() == pytest.approx(0.2)
    u = noise.edit  # of a standard normal edit, whose entropy the batch gives
    log_prob = (-0.5 * u**2 - 0.5 * math.log(2 * math.pi) - th.log(1 - th.tanh(u) ** 2)).sum(dim=1)
    assert metrics["entropy"].item() == pytest.approx(-log_prob.mean().item(), abs=1e-4)
    assert model.policy.log_ent_coef.grad.item() == pytest.approx(0.2 * (-log_prob.mean().item() - target), abs=1e-4)


# Acting.

SAMPLERS = {"plain": ["flow", "bc_flow"], "FQL": ["one_step", "flow", "bc_flow"], "EDIT": ["edit", "flow", "bc_flow"]}


@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers(name: str) -> None:
    """Section 5: each variant acts in its own way, clipped to the box; ``deterministic`` means zero noise, the edit's too."""
    variant = VARIANTS[name]
    model = variant.model()
    reference, policy = Reference(model, variant), model.policy
    assert list(policy.samplers) == SAMPLERS[name] and policy.sampler == SAMPLERS[name][0]
    obs = random_batch(variant, 0, th.float32)[0].observations
    for sampler in SAMPLERS[name]:
        acting = policy.with_sampler(sampler)
        noise = th.randn(BATCH, acting.noise_dim, generator=th.Generator().manual_seed(0))
        assert acting.noise_dim == (2 if sampler == "edit" else 1) * variant.dim
        for given in (noise, th.zeros_like(noise)):
            if sampler in ("one_step", "edit"):
                expected = reference.act(obs.double(), given.double())
            else:
                expected = reference.flow_action(obs.double(), given.double(), sampler)
            with th.no_grad():
                th.testing.assert_close(acting.act(obs, given).double(), expected.detach(), rtol=0, atol=2e-5)
        assert expected.abs().max().item() > 0.01
        first, state = acting.predict(obs.numpy(), deterministic=True)
        assert state is None
        np.testing.assert_allclose(first, expected.detach().numpy(), atol=2e-5)
        th.manual_seed(0)
        samples = np.stack([acting.predict(obs.numpy(), deterministic=False)[0] for _ in range(20)])
        assert np.abs(samples).max() <= 1 and samples.std(axis=0).max() > 0.05


def test_the_best_of_several() -> None:
    """The same choice for acting as for the target, by the critics' mean and not by their targets'."""
    variant = VARIANTS["best of three"]
    model, reference = both(variant)
    batch, noise = random_batch(variant, 3)
    obs = batch.next_observations
    with th.no_grad():
        chosen = model.policy.act_best(obs, noise.next_noise)
        candidates = th.stack([reference.act(obs, noise.next_noise[:, n]) for n in range(3)])
        best = th.stack([reference.mean_q("critic", obs, a) for a in candidates]).argmax(dim=0)
        by_targets = th.stack([reference.mean_q("critic_target", obs, a) for a in candidates]).argmax(dim=0)
    th.testing.assert_close(chosen, candidates[best, th.arange(BATCH)], rtol=0, atol=1e-10)
    assert len(best.unique()) == 3 and not th.equal(best, by_targets)


def test_noise() -> None:
    """Standard normal numbers and a uniform time, all independent; a seed repeats them."""
    arguments = {"edit_scale": 0.3, "best_of_n": 2, "flow_steps": 3, "horizon_length": 2, "action_dim": 1}
    model, n = make_model(**arguments), 40_000
    noise = model.draw_noise(n)
    assert noise.next_noise.shape == (n, 2, 4) and noise.path.shape == (3, n, 2) and noise.t.shape == (n, 1)
    assert noise.t.min().item() >= 0 and noise.t.max().item() <= 1
    assert noise.t.mean().item() == pytest.approx(0.5, abs=5 / math.sqrt(12 * n))
    parts = [noise.next_noise.flatten(start_dim=1), noise.x0, *noise.path, noise.z, noise.edit]
    columns = th.cat([*parts, noise.t], dim=1)
    normal = columns[:, :-1]
    assert normal.shape == (n, 8 + 2 + 6 + 2 + 2)
    assert normal.mean(dim=0).abs().max().item() < 5 / math.sqrt(n)
    assert (normal.std(dim=0) - 1).abs().max().item() < 5 / math.sqrt(2 * n)
    assert (th.corrcoef(columns.T) - th.eye(columns.shape[1])).abs().max().item() < 5 / math.sqrt(n)
    for again, first in zip(make_model(**arguments).draw_noise(n), noise, strict=True):
        assert th.equal(again, first)


# Arguments, and files.


def test_published_defaults() -> None:
    """Section 6.1, and the networks of section 3."""
    model = make_model()
    expected = dict(learning_rate=3e-4, batch_size=256, tau=0.005, gamma=0.99, rho=0.5, max_grad_norm=1.0)
    expected |= dict(
        inv_temp=1.0, kl_budget=None, clip_adj=True, target_actor=True, use_target_grad=True, fql_alpha=0.0, edit_scale=0.0
    )
    assert {name: getattr(model, name) for name in expected} == expected
    assert (model.policy.flow_steps, model.policy.best_of_n, model.target_entropy) == (10, 1, "auto")
    policy = QAMPolicy(spaces.Box(-1, 1, (3,)), spaces.Box(-1, 1, (2,)), lambda _: 3e-4, one_step=True, edit_scale=0.1)
    assert policy.n_critics == 10 and policy.critic.net.layer_norm
    assert tuple(policy.critic.net.weights[1].shape) == (10, 512, 512)
    outputs = {"bc_flow": 2, "flow": 2, "actor": 2, "edit": 4}
    for network, n_out in outputs.items():
        sizes = [layer.out_features for layer in getattr(policy, network).net.layers]
        assert sizes == [512, 512, 512, 512, n_out], network
    for half in policy.edit.net.layers[-1].weight.split(2):  # two heads, each Xavier uniform
        bound = math.sqrt(6 / (512 + 2))
        assert 0.95 * bound < half.abs().max().item() <= bound


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fql_alpha": 1.0, "edit_scale": 0.1}, "two variants: leave one at 0"),
        ({"inv_temp": -1.0}, "`inv_temp` is -1.0; it must not be negative"),
        ({"kl_budget": 0.0}, "`kl_budget` is 0.0; it must be above 0"),
        ({"kl_budget": -1.0}, "`kl_budget` is -1.0; it must be above 0"),
        ({"kl_budget": 1.0, "inv_temp": 1.0}, "`inv_temp` is 1.0 and `kl_budget` is 1.0: .* Set only one of them"),
        ({"rho": -0.5}, "`rho` is -0.5"),
        ({"fql_alpha": -3.0}, "`fql_alpha` is -3.0"),
        ({"edit_scale": 1.5}, r"`edit_scale` is 1.5; it must be in \[0, 1\]"),
        ({"edit_scale": -0.1}, "`edit_scale` is -0.1"),
        ({"target_entropy": "low"}, "`target_entropy` is 'low'; it must be a number or 'auto'"),
        ({"flow_steps": 0}, "`flow_steps` is 0"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    """The constructor raises an error that names the argument and its value."""
    with pytest.raises(ValueError, match=message):
        make_model(**arguments)


@pytest.mark.parametrize("name", [*SAMPLERS, "budget", "budget, EDIT, chunks"])
def test_a_saved_variant(name: str, tmp_path: Path) -> None:
    """A loaded model is the same variant, with its temperature and optimizer, and its updates are equal."""
    variant = VARIANTS[name]
    model = variant.model()
    model.update(*random_batch(variant, 0, th.float32))
    model.save(tmp_path / "model")
    loaded = QAM.load(tmp_path / "model", device="cpu")
    assert list(loaded.policy.samplers) == list(model.policy.samplers)
    for argument in asdict(variant):
        if argument not in ("action_dim", "n_critics", "best_of_n", "horizon_length"):
            assert getattr(loaded, argument) == getattr(variant, argument), argument
    if name == "EDIT":
        assert loaded.policy.edit_scale == variant.edit_scale
        assert loaded.policy.log_ent_coef.item() == model.policy.log_ent_coef.item() != 0
    if variant.kl_budget is not None:
        assert loaded.policy.kl_coef.item() == model.policy.kl_coef.item() != 1
        assert loaded.policy.kl_average.item() == model.policy.kl_average.item() != 0
    for each in (model, loaded):
        each.update(*random_batch(variant, 1, th.float32))
    for (parameter, first), (_, second) in zip(model.policy.named_parameters(), loaded.policy.named_parameters(), strict=True):
        assert th.equal(first, second), parameter
    model.policy.save(tmp_path / "policy")
    policy = QAMPolicy.load(tmp_path / "policy", device="cpu")
    obs = np.zeros((1, 4), np.float32)
    np.testing.assert_array_equal(policy.predict(obs, deterministic=True)[0], model.predict(obs, deterministic=True)[0])


# A short training whose result is known.


@pytest.mark.nightly
@pytest.mark.slow
def test_learned_tilt() -> None:
    """
    A bandit: actions of N(-.1, .4^2), Q = .3 a, inverse temperature 5. Clone, critics and flow all learn, from scratch and
    together, and the flow's samples come to the moments of the fixed point at T = 10 (those of U4, by its backward sweep:
    their bias is the method's), .165 and .339. A Jacobian at the wrong time would lead to a mean of .07, a schedule shifted
    by a step to .10, a loss without its factor of 2 to .43.
    """
    rng, n = np.random.default_rng(0), 20_000
    actions = np.clip(rng.normal(-0.1, 0.4, (n, 1)), -1, 1)
    data = dict(observations=np.ones((n, 1)), actions=actions, rewards=0.3 * actions[:, 0], terminations=np.ones(n))
    model = QAM(
        "FlowPolicy",
        box_env(obs_dim=1),
        learning_rate=lambda remaining: 1e-2 * remaining,
        inv_temp=5.0,
        clip_adj=False,
        dataset=data,
        tau=0.05,
        policy_kwargs={"net_arch": (32, 32), "n_critics": 2},
        offline_log_interval=10_000,
        device="cpu",
        seed=0,
    )
    model.learn(1200)
    noise = th.special.ndtri((th.arange(2000) + 0.5) / 2000)[:, None]
    with th.no_grad():
        clone, tilted = (act(th.ones(2000, 1), noise) for act in (model.policy.act_bc_flow, model.policy.act_flow))
    assert clone.mean().item() == pytest.approx(-0.1, abs=0.03)
    assert clone.std().item() == pytest.approx(0.34, abs=0.03)  # Euler's own bias
    assert tilted.mean().item() == pytest.approx(0.165, abs=0.04)
    assert tilted.std().item() == pytest.approx(0.34, abs=0.03)


@pytest.mark.nightly
@pytest.mark.slow
def test_learned_temperature() -> None:
    """
    A bandit whose rewards are twice as large in the second case: the divergence comes to its budget in both, so that the
    coefficient is twice as large as well, and the actions have the same distribution.
    """
    rng, n, found = np.random.default_rng(0), 20_000, []
    actions = np.clip(rng.normal(-0.1, 0.4, (n, 1)), -1, 1)
    noise = th.special.ndtri((th.arange(2000) + 0.5) / 2000)[:, None]
    for slope in (4.0, 8.0):
        data = dict(observations=np.ones((n, 1)), actions=actions, rewards=slope * actions[:, 0], terminations=np.ones(n))
        model = QAM(
            "FlowPolicy",
            box_env(obs_dim=1),
            learning_rate=lambda remaining: 1e-2 * remaining,
            kl_budget=0.5,
            clip_adj=False,
            batch_size=128,
            dataset=data,
            tau=0.05,
            policy_kwargs={"net_arch": (32, 32), "n_critics": 2},
            offline_log_interval=10_000,
            device="cpu",
            seed=0,
        )
        policy = model.learn(400).policy
        with th.no_grad():
            tilted = policy.act_flow(th.ones(2000, 1), noise)
        assert policy.kl_average.item() == pytest.approx(0.5, abs=0.05)
        found.append((policy.kl_coef.item(), tilted.mean().item(), tilted.std().item()))
    (coef, mean, std), (coef_2, mean_2, std_2) = found
    assert coef_2 == pytest.approx(2 * coef, rel=0.15)
    assert (mean_2, std_2) == pytest.approx((mean, std), abs=0.04) and mean > 0.15
