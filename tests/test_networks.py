"""The networks against PyTorch's own layers, put together one by one."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch as th
from torch import nn
from torch.nn import functional as F

from sb3_flow.common import networks
from sb3_flow.common.flow import same_time
from sb3_flow.common.networks import ACTIVATIONS, MLP, EnsembleMLP, gelu_tanh, get_activation

POINTS = [-1000.0, -20.0, -5.0, -1.7, -0.75179, -0.1, 0.0, 1e-4, 0.3, 1.0, 2.5, 6.0, 30.0, 1000.0]


@pytest.fixture(autouse=True, params=[0, networks.SMALL], ids=["fast", "small"])
def size_of_small(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors as small as here take PyTorch's GELU; test the fast one, too."""
    monkeypatch.setattr(networks, "SMALL", request.param)


def randomize(module: nn.Module) -> None:
    """Biases, scales and shifts start as 0 and 1, which would hide how they are used."""
    generator = th.Generator().manual_seed(0)
    with th.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * th.randn(parameter.shape, generator=generator, dtype=parameter.dtype))


@pytest.mark.parametrize(("dtype", "tolerance"), [(th.float32, 1e-6), (th.float64, 1e-14)])
def test_gelu_tanh(dtype: th.dtype, tolerance: float) -> None:
    """Values and gradients are those of the tanh approximation of GELU, with and without gradients in use."""
    x = th.tensor(POINTS, dtype=dtype)
    before = x.clone()
    plain = gelu_tanh(x)
    assert th.equal(x, before)  # not changed in place
    x.requires_grad_()
    weights = th.linspace(-1, 2, len(POINTS), dtype=dtype)
    ours, theirs = gelu_tanh(x), F.gelu(x, approximate="tanh")
    th.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)
    th.testing.assert_close(plain, ours.detach(), rtol=tolerance, atol=tolerance)
    (gradient,) = th.autograd.grad((ours * weights).sum(), x)
    (expected,) = th.autograd.grad((theirs * weights).sum(), x)
    th.testing.assert_close(gradient, expected, rtol=2 * tolerance, atol=2 * tolerance)
    assert th.equal(x.detach(), before)


@pytest.mark.parametrize("width", [8, 256])
def test_gelu_under_vmap(width: int) -> None:
    """Large tensors have a function of their own, with gradients outside of ``vmap``."""
    x = th.randn(3, 64, width, dtype=th.float64, requires_grad=True)
    expected = F.gelu(x, approximate="tanh")
    ours = th.vmap(gelu_tanh)(x)
    th.testing.assert_close(ours, expected)
    weights = th.randn_like(x)
    gradients = [th.autograd.grad(y, x, weights)[0] for y in (ours, expected)]
    th.testing.assert_close(*gradients)
    with th.no_grad():
        th.testing.assert_close(th.vmap(gelu_tanh)(x), expected)


def test_gelu_is_not_the_exact_one() -> None:
    """The two GELUs differ by up to 5e-4, so the tolerances above can tell them apart."""
    x = th.linspace(-3, 3, 101, dtype=th.float64)
    assert (gelu_tanh(x) - F.gelu(x)).abs().max().item() > 1e-4


@pytest.mark.parametrize("mix", [lambda gelu, x: gelu, lambda gelu, x: gelu * x, lambda gelu, x: gelu + x * x])
def test_second_derivative_of_gelu(mix: Callable[[th.Tensor, th.Tensor], th.Tensor]) -> None:
    """A second derivative raises (or is right), also in a sum with other terms; it is never silently left out."""
    x = th.tensor([0.3, -1.0], dtype=th.float64, requires_grad=True)
    (first,) = th.autograd.grad(mix(F.gelu(x, approximate="tanh"), x).sum(), x, create_graph=True)
    (expected,) = th.autograd.grad(first.sum(), x)
    try:
        (first,) = th.autograd.grad(mix(gelu_tanh(x), x).sum(), x, create_graph=True)
        (second,) = th.autograd.grad(first.sum(), x)
    except RuntimeError:
        return
    th.testing.assert_close(second, expected)


@pytest.mark.parametrize("rest", [(2,), (2, 1)])
def test_split_first_layer(rest: tuple[int, ...]) -> None:
    """One product with the features and one with the rest are one linear layer on the concatenation, gradients too."""
    network = MLP(5, sum(rest), 3, [7, 6], "silu").double()
    randomize(network)
    layers = [nn.Linear(layer.in_features, layer.out_features).double() for layer in network.layers]
    for copied, layer in zip(layers, network.layers, strict=True):
        copied.load_state_dict(layer.state_dict())
    plain = nn.Sequential(layers[0], nn.SiLU(), layers[1], nn.SiLU(), layers[2])
    parts = [th.randn(4, n, dtype=th.float64) for n in (5, *rest)]
    ours, theirs = network(network.context(parts[0]), *parts[1:]), plain(th.cat(parts, dim=1))
    th.testing.assert_close(ours, theirs, rtol=0, atol=1e-13)
    for output in (ours, theirs):
        output.square().sum().backward()
    for ours_parameter, their_parameter in zip(network.parameters(), plain.parameters(), strict=True):
        th.testing.assert_close(ours_parameter.grad, their_parameter.grad, rtol=0, atol=1e-12)


class OneCritic(nn.Module):
    """One member of an ensemble, with PyTorch's own layers: linear, then activation, then layer norm."""

    def __init__(self, ensemble: EnsembleMLP, member: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        last = len(ensemble.weights) - 1
        for i, (weight, bias) in enumerate(zip(ensemble.weights, ensemble.biases, strict=True)):
            n_from, n_to = weight.shape[1:]
            linear = nn.Linear(n_from, n_to)
            linear.weight = nn.Parameter(weight[member].detach().t().clone())
            linear.bias = nn.Parameter(bias[member, 0].detach().clone())
            layers.append(linear)
            if i < last:
                layers.append(nn.GELU(approximate="tanh"))
                if ensemble.layer_norm:
                    norm = nn.LayerNorm(n_to, eps=1e-6)
                    norm.weight = nn.Parameter(ensemble.scales[i][member, 0].detach().clone())
                    norm.bias = nn.Parameter(ensemble.shifts[i][member, 0].detach().clone())
                    layers.append(norm)
        self.layers = nn.Sequential(*layers)

    def forward(self, inputs: th.Tensor) -> th.Tensor:
        return self.layers(inputs)[:, 0]


@pytest.mark.parametrize("layer_norm", [True, False])
@pytest.mark.parametrize("n_members", [1, 3])
def test_ensemble_is_separate_networks(n_members: int, layer_norm: bool) -> None:
    """The batched ensemble equals K networks made from its slices: values, and gradients of weights and inputs."""
    ensemble = EnsembleMLP(n_members, 4, [8, 5], layer_norm=layer_norm).double()
    randomize(ensemble)
    inputs = th.randn(6, 4, dtype=th.float64) * 0.05  # small, so that a wrong eps would show
    inputs.requires_grad_()
    members = [OneCritic(ensemble, k) for k in range(n_members)]
    ours, theirs = ensemble(inputs), th.stack([member(inputs) for member in members])
    assert ours.shape == (n_members, 6)
    th.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    (gradient,) = th.autograd.grad(ours.square().sum(), inputs, retain_graph=True)
    (expected,) = th.autograd.grad(theirs.square().sum(), inputs, retain_graph=True)
    th.testing.assert_close(gradient, expected, rtol=0, atol=1e-11)
    ours.square().sum().backward()
    theirs.square().sum().backward()
    for k, member in enumerate(members):
        linears = [layer for layer in member.layers if isinstance(layer, nn.Linear)]
        for i, linear in enumerate(linears):
            th.testing.assert_close(ensemble.weights[i].grad[k], linear.weight.grad.t(), rtol=0, atol=1e-11)
            th.testing.assert_close(ensemble.biases[i].grad[k, 0], linear.bias.grad, rtol=0, atol=1e-11)
        norms = [layer for layer in member.layers if isinstance(layer, nn.LayerNorm)]
        assert len(norms) == (2 if layer_norm else 0)
        for i, norm in enumerate(norms):
            th.testing.assert_close(ensemble.scales[i].grad[k, 0], norm.weight.grad, rtol=0, atol=1e-11)
            th.testing.assert_close(ensemble.shifts[i].grad[k, 0], norm.bias.grad, rtol=0, atol=1e-11)


def test_epsilon_of_layer_norm() -> None:
    """Section 3: eps is 1e-6, not PyTorch's 1e-5. Hidden units that barely vary make it visible, worked out by hand."""
    ensemble = EnsembleMLP(1, 1, [2], activation="tanh").double()
    with th.no_grad():
        ensemble.weights[0].copy_(th.tensor([[[1.0, -1.0]]]))
        ensemble.weights[1].copy_(th.tensor([[[1.0], [0.0]]]))
    spread = math.tanh(1e-3)  # hidden units are +-spread: mean 0, variance spread^2
    expected = spread / math.sqrt(spread**2 + 1e-6)
    assert ensemble(th.tensor([[1e-3]], dtype=th.float64)).item() == pytest.approx(expected, rel=1e-12)


def test_frozen_ensemble() -> None:
    """Frozen: the same values and the same gradient of the inputs, and none of the parameters gets one."""
    ensemble = EnsembleMLP(2, 3, [8, 8]).double()
    randomize(ensemble)
    inputs = th.randn(5, 3, dtype=th.float64, requires_grad=True)
    (expected,) = th.autograd.grad(ensemble(inputs).square().sum(), inputs)
    frozen = ensemble(inputs, frozen=True)
    assert th.equal(frozen, ensemble(inputs))
    frozen.square().sum().backward()
    th.testing.assert_close(inputs.grad, expected, rtol=0, atol=1e-14)
    assert all(parameter.grad is None for parameter in ensemble.parameters())


def test_initial_weights_of_ensemble() -> None:
    """Xavier uniform by the fan of one member, not of the stacked tensor; zero biases, unit norms; members differ."""
    ensemble = EnsembleMLP(4, 30, [50, 40])
    for weight in ensemble.weights:
        n_from, n_to = weight.shape[1:]
        bound = math.sqrt(6 / (n_from + n_to))
        for member in weight:
            assert member.abs().max().item() <= bound
            assert member.abs().max().item() > 0.85 * bound
        assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.15)
        assert not any(th.equal(weight[i], weight[j]) for i in range(4) for j in range(i))
    assert all((bias == 0).all() for bias in ensemble.biases)
    assert all((scale == 1).all() for scale in ensemble.scales)
    assert all((shift == 0).all() for shift in ensemble.shifts)


def test_initial_weights_of_mlp() -> None:
    """Xavier uniform by the whole input of the first layer, features and rest together; zero biases."""
    network = MLP(30, 10, 20, [50, 40])
    for layer, (n_from, n_to) in zip(network.layers, [(40, 50), (50, 40), (40, 20)], strict=True):
        bound = math.sqrt(6 / (n_from + n_to))
        assert 0.95 * bound < layer.weight.abs().max().item() <= bound
        assert (layer.bias == 0).all()


@pytest.mark.parametrize(("n_in", "n_out"), [(28 + 5, 1), (28 + 5 + 1, 5)])
def test_number_of_parameters(n_in: int, n_out: int) -> None:
    """Section 3: 512 (n_in + 1) + 3 * 512 * 513 + n_out * 513; a critic has 2 * 4 * 512 more for its layer norms."""
    formula = 512 * (n_in + 1) + 3 * 512 * 513 + n_out * 513
    network = MLP(28, n_in - 28, n_out, [512] * 4)
    assert sum(parameter.numel() for parameter in network.parameters()) == formula
    if n_out == 1:
        ensemble = EnsembleMLP(2, n_in, [512] * 4)
        assert sum(parameter.numel() for parameter in ensemble.parameters()) == 2 * (formula + 2 * 4 * 512)


def test_unknown_activation() -> None:
    """The error names what was asked for and lists what there is."""
    with pytest.raises(ValueError, match="'swish'") as error:
        get_activation("swish")
    assert all(name in str(error.value) for name in ACTIVATIONS)
    with pytest.raises(ValueError, match="'swish'"):
        EnsembleMLP(1, 1, [2], activation="swish")


def test_no_hidden_layer() -> None:
    """The reused first layer must be a hidden one, so an empty architecture is refused by name."""
    with pytest.raises(ValueError, match="net_arch"):
        MLP(1, 1, 1, [])


@pytest.mark.parametrize("name", ["gelu", "mish"])
@pytest.mark.parametrize("n", [16, 2_000])
def test_transforms_of_torch_func(name: str, n: int) -> None:
    """Users' Jacobians and sensitivities: all kinds of derivatives agree, below and above the size of the fast kernels."""
    field = networks.VelocityMLP(2, 1, [8, 8], name)
    with th.no_grad():
        context = field.context(th.randn(n, 2))
    x, t = th.randn(n, 1), th.full((n, 1), 0.5)

    def f(x: th.Tensor) -> th.Tensor:
        return field(context, x, t)

    leaf = x.clone().requires_grad_()
    (expected_slope,) = th.autograd.grad(f(leaf).sum(), leaf)
    ones = th.ones_like(x)
    th.testing.assert_close(th.func.grad(lambda x: f(x).sum())(x), expected_slope)
    th.testing.assert_close(th.func.vjp(f, x)[1](ones)[0], expected_slope)
    th.testing.assert_close(th.func.jvp(f, (x,), (ones,))[1], expected_slope)
    with th.autograd.forward_ad.dual_level():
        dual = th.autograd.forward_ad.make_dual(x, ones)
        th.testing.assert_close(th.autograd.forward_ad.unpack_dual(f(dual)).tangent, expected_slope)


@pytest.mark.parametrize("n", [1, 5])
def test_same_time(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one time for all points its embedding is computed once; velocities and gradients stay the same."""
    embedded, sinusoid = [], networks.sinusoid

    def counting(t: th.Tensor, *arguments: Any, **kwargs: Any) -> th.Tensor:
        embedded.append(len(t))
        return sinusoid(t, *arguments, **kwargs)

    monkeypatch.setattr(networks, "sinusoid", counting)
    field = networks.VelocityMLP(3, 2, [16, 16], encode_time_dim=8).double()
    features, x, t = th.randn(n, 3).double(), th.randn(n, 2).double().requires_grad_(), same_time(0.3, th.zeros(n, 2).double())
    inputs = [x, *field.parameters()]
    results = []
    for times in (t, t.contiguous().clone()):
        v = field(field.context(features), x, times)
        results.append([v, *th.autograd.grad(v.square().sum(), inputs)])
    assert embedded == [1, n]
    th.testing.assert_close(*results, rtol=1e-12, atol=1e-12)
