"""Inputs of the networks: a naive encoder of images in explicit loops, crops by padding and slicing, normalized vectors."""

import math
import pathlib
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces

from sb3_flow import FQL
from sb3_flow.common.data.batches import random_crop
from sb3_flow.common.encoders import FlowExtractor, ImpalaEncoder, ObservationNormalizer, SmallEncoder
from sb3_flow.fql import FQLPolicy

ACTIONS = spaces.Box(-1.0, 1.0, (2,))
SMALL = {"net_arch": [8]}


class SpacesOnly(gym.Env):
    """An environment that only provides spaces."""

    def __init__(self, observation_space: spaces.Space, action_space: spaces.Box = ACTIONS) -> None:
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        return self.observation_space.sample(), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self.observation_space.sample(), 0.0, False, False, {}


# The naive encoder.


def convolve(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """3x3, stride 1, "same": zeros around (C, H, W)."""
    _, height, width = x.shape
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    out = np.empty((len(weight), height, width))
    for i in range(height):
        for j in range(width):
            out[:, i, j] = np.tensordot(weight, padded[:, i : i + 3, j : j + 3], axes=3) + bias
    return out


def pool(x: np.ndarray) -> np.ndarray:
    """3x3 maximum of stride 2, "same": ceil(n / 2) outputs; of the padding needed the smaller half comes first."""
    channels, height, width = x.shape
    n_rows, n_columns = math.ceil(height / 2), math.ceil(width / 2)
    top = max(2 * (n_rows - 1) + 3 - height, 0) // 2
    left = max(2 * (n_columns - 1) + 3 - width, 0) // 2
    out = np.empty((channels, n_rows, n_columns))
    for i in range(n_rows):
        for j in range(n_columns):
            rows = [r for r in range(2 * i - top, 2 * i - top + 3) if 0 <= r < height]
            columns = [c for c in range(2 * j - left, 2 * j - left + 3) if 0 <= c < width]
            out[:, i, j] = x[:, rows][:, :, columns].max(axis=(1, 2))
    return out


def naive_encoder(encoder: ImpalaEncoder, image: np.ndarray) -> np.ndarray:
    """Section 8: three stacks of convolution, pooling and a residual block, then ReLU, H-W-C flattening, dense, GELU."""
    weights: Iterator[np.ndarray] = (parameter.detach().numpy() for parameter in encoder.parameters())
    x = image
    for _ in range(3):
        x = pool(convolve(x, next(weights), next(weights)))
        residual = convolve(np.maximum(x, 0), next(weights), next(weights))
        x = x + convolve(np.maximum(residual, 0), next(weights), next(weights))
    flat = np.maximum(x, 0).transpose(1, 2, 0).reshape(-1)
    h = next(weights) @ flat + next(weights)
    assert next(weights, None) is None
    return 0.5 * h * (1 + np.tanh(np.sqrt(2 / np.pi) * (h + 0.044715 * h**3)))


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 13, 11), (1, 12, 7), (1, 1, 2)])
def test_impala_encoder(shape: tuple[int, int, int]) -> None:
    """Section 8: the encoder equals explicit loops, on even and odd sides."""
    encoder = ImpalaEncoder(shape, features_dim=5).double()
    generator = th.Generator().manual_seed(0)
    with th.no_grad():
        for parameter in encoder.parameters():  # biases start at zero, which would hide them
            parameter.add_(0.05 * th.randn(parameter.shape, generator=generator, dtype=th.float64))
    images = th.rand(2, *shape, generator=generator, dtype=th.float64)
    expected = np.stack([naive_encoder(encoder, image) for image in images.numpy()])
    np.testing.assert_allclose(encoder(images).detach().numpy(), expected, rtol=0, atol=1e-11)


def naive_small_encoder(encoder: SmallEncoder, image: np.ndarray) -> np.ndarray:
    """Three times every second row and column of a convolution, then ReLU; C-H-W flattening, dense, GELU."""
    weights: Iterator[np.ndarray] = (parameter.detach().numpy() for parameter in encoder.parameters())
    x = image
    for _ in range(3):
        x = np.maximum(convolve(x, next(weights), next(weights))[:, ::2, ::2], 0)
    h = next(weights) @ x.reshape(-1) + next(weights)
    assert next(weights, None) is None
    return 0.5 * h * (1 + np.tanh(np.sqrt(2 / np.pi) * (h + 0.044715 * h**3)))


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 13, 11), (1, 1, 2)])
def test_small_encoder(shape: tuple[int, int, int]) -> None:
    """It equals explicit loops, on even and odd sides."""
    encoder = SmallEncoder(shape, features_dim=5).double()
    generator = th.Generator().manual_seed(0)
    with th.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.05 * th.randn(parameter.shape, generator=generator, dtype=th.float64))
    images = th.rand(2, *shape, generator=generator, dtype=th.float64)
    expected = np.stack([naive_small_encoder(encoder, image) for image in images.numpy()])
    np.testing.assert_allclose(encoder(images).detach().numpy(), expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("encoder", [ImpalaEncoder, SmallEncoder])
def test_gradients_reach_all_weights(encoder: type[Any]) -> None:
    network = encoder((3, 20, 20))
    network(th.rand(4, 3, 20, 20)).square().sum().backward()
    assert all((parameter.grad != 0).any() for parameter in network.parameters())


def test_published_size() -> None:
    """Section 8: 64 x 64 with 9 channels gives 8 * 8 * 32 = 2048 values, then 512 features."""
    encoder = ImpalaEncoder((9, 64, 64))
    assert encoder.linear.in_features == 2048
    assert encoder(th.zeros(2, 9, 64, 64)).shape == (2, 512)


def test_initial_weights() -> None:
    """Convolutions start Xavier uniform (fans count the 9 taps), biases zero."""
    for name, parameter in ImpalaEncoder((3, 8, 8)).named_parameters():
        if name.endswith("bias"):
            assert (parameter == 0).all()
        elif parameter.ndim == 4:
            bound = math.sqrt(6 / (9 * (parameter.shape[0] + parameter.shape[1])))
            assert 0.95 * bound < parameter.abs().max().item() <= bound


# Random crops.


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_random_crop(dtype: type) -> None:
    """A crop is the slice of an edge-padded image that starts at its offset (row, column), for every offset."""
    rng = np.random.default_rng(0)
    offsets = np.array([[i, j] for i in range(7) for j in range(7)])
    images = rng.integers(0, 256, (49, 2, 6, 9)).astype(dtype)
    cropped = random_crop(th.from_numpy(images), th.from_numpy(offsets)).numpy()
    assert cropped.dtype == dtype
    for image, (top, left), crop in zip(images, offsets, cropped, strict=True):
        padded = np.pad(image, ((0, 0), (3, 3), (3, 3)), mode="edge")
        np.testing.assert_array_equal(crop, padded[:, top : top + 6, left : left + 9])


@pytest.mark.parametrize("pad", [1, 3])
def test_unmoved_crop(pad: int) -> None:
    """The offset ``pad`` is the identity."""
    images = th.rand(4, 3, 8, 8)
    assert th.equal(random_crop(images, th.full((4, 2), pad), pad=pad), images)


def image_data(n: int) -> dict[str, np.ndarray]:
    """Pictures of which every crop looks different, and what follows each: its negative."""
    images = np.random.default_rng(0).integers(0, 256, (n, 1, 8, 8), dtype=np.uint8)
    return {
        "observations": images,
        "next_observations": 255 - images,
        "actions": np.linspace(-1, 1, n)[:, None] * np.ones(2),
        "rewards": np.arange(n),
        "terminations": np.zeros(n),
    }


def offset_of(image: np.ndarray, crop: np.ndarray) -> tuple[int, int]:
    padded = np.pad(image, ((0, 0), (3, 3), (3, 3)), mode="edge")
    found = [(i, j) for i in range(7) for j in range(7) if np.array_equal(padded[:, i : i + 8, j : j + 8], crop)]
    assert len(found) == 1
    return found[0]


def test_augmentation() -> None:
    """
    T10 and section 8: one coin for a whole batch; within it an offset for each sample, uniform in {0 .. 6}^2, and the
    same for its observation and its next one.
    """
    data = image_data(20)
    env = SpacesOnly(spaces.Box(0, 255, (1, 8, 8), np.uint8))
    model = FQL("FlowPolicy", env, dataset=data, device="cpu", seed=0, policy_kwargs=SMALL)
    coins, offsets = [], []
    for _ in range(60):
        batch = model.sample_batch(8)
        rows = batch.rewards.long().numpy()
        found, following = (
            [offset_of(data[field][row], crop) for row, crop in zip(rows, getattr(batch, field).numpy(), strict=True)]
            for field in ("observations", "next_observations")
        )
        assert found == following
        coins.append(any(offset != (3, 3) for offset in found))
        offsets += found if coins[-1] else []
    assert 15 <= sum(coins) <= 45  # 4 standard deviations around 30
    # Were the coin tossed for each sample, half of these would be unmoved.
    assert np.mean([offset == (3, 3) for offset in offsets]) < 0.1
    for axis in (0, 1):
        counts = np.bincount([offset[axis] for offset in offsets], minlength=7)
        assert len(counts) == 7 and counts.min() > 0.5 * len(offsets) / 7


@pytest.mark.parametrize(("probability", "cropped"), [(0.0, False), (1.0, True)])
def test_crop_probability(probability: float, cropped: bool) -> None:
    """Images of a dictionary are cropped with the given probability, its vectors are left alone."""
    data = image_data(20)
    vector = np.arange(20, dtype=np.float32)[:, None]
    data["observations"] = {"camera": data["observations"], "state": vector}
    data["next_observations"] = {"camera": data["next_observations"], "state": vector + 1}
    env = SpacesOnly(spaces.Dict(camera=spaces.Box(0, 255, (1, 8, 8), np.uint8), state=spaces.Box(-np.inf, np.inf, (1,))))
    model = FQL("FlowPolicy", env, dataset=data, device="cpu", crop_probability=probability, policy_kwargs=SMALL)
    for _ in range(5):
        batch = model.sample_batch(8)
        rows = batch.rewards.long().numpy()
        assert np.array_equal(batch.observations["camera"], data["observations"]["camera"][rows]) == (not cropped)
        np.testing.assert_array_equal(batch.observations["state"][:, 0], rows)
        np.testing.assert_array_equal(batch.next_observations["state"][:, 0], rows + 1)


# Features extractors.


def test_extractor_of_vectors() -> None:
    """A vector is its own features; an array is flattened."""
    extractor = FlowExtractor(spaces.Box(-1, 1, (2, 3)))
    assert extractor.features_dim == 6
    x = th.arange(12.0).reshape(2, 2, 3)
    assert th.equal(extractor(x), x.reshape(2, 6))


def test_extractor_of_images() -> None:
    """An image goes through an encoder of its own."""
    space = spaces.Box(0, 255, (3, 8, 8), np.uint8)
    extractor = FlowExtractor(space, cnn_output_dim=7)
    assert extractor.features_dim == 7
    images = th.rand(2, 3, 8, 8)
    assert th.equal(extractor(images), extractor.encoders[0](images))
    assert isinstance(extractor.encoders[0], ImpalaEncoder)


def test_encoder_by_name(tmp_path: pathlib.Path) -> None:
    """Each network has the encoder that ``policy_kwargs`` names, also after loading; the default is IMPALA's."""
    space = spaces.Dict(camera=spaces.Box(0, 255, (3, 8, 8), np.uint8), arm=spaces.Box(-1, 1, (2,)))
    for kwargs, expected in (({}, ImpalaEncoder), ({"encoder": "small", "cnn_output_dim": 4}, SmallEncoder)):
        policy_kwargs = {**SMALL, "features_extractor_kwargs": kwargs}
        model = FQL("FlowPolicy", SpacesOnly(space), policy_kwargs=policy_kwargs, device="cpu")
        model.save(tmp_path / "model")
        loaded = FQL.load(tmp_path / "model", device="cpu")
        for policy in (model.policy, loaded.policy):
            for network in (policy.actor, policy.bc_flow, policy.critic, policy.critic_target):
                assert type(network.features_extractor.encoders[network.features_extractor.keys.index("camera")]) is expected
        batch = {key: np.stack([part] * 3) for key, part in space.sample().items()}
        actions = [each.predict(batch, deterministic=True)[0] for each in (model, loaded)]
        np.testing.assert_array_equal(*actions)
    with pytest.raises(ValueError, match="There is no `encoder` 'tiny'; choose one of impala, small"):
        FQL("FlowPolicy", SpacesOnly(space), policy_kwargs={"features_extractor_kwargs": {"encoder": "tiny"}})


def test_extractor_of_dictionaries() -> None:
    """The parts of a dictionary side by side, in its order, images encoded each by its own encoder."""
    space = spaces.Dict(
        {
            "arm": spaces.Box(-1, 1, (2,)),
            "left": spaces.Box(0, 255, (1, 8, 8), np.uint8),
            "right": spaces.Box(0, 255, (1, 8, 8), np.uint8),
            "tool": spaces.Discrete(3),
        }
    )
    extractor = FlowExtractor(space, cnn_output_dim=4)
    assert extractor.features_dim == 2 + 4 + 4 + 3
    policy = FQLPolicy(space, ACTIONS, lambda _: 1e-3, net_arch=[8], features_extractor_kwargs={"cnn_output_dim": 4})
    own = policy.critic.features_extractor
    observations = {
        "tool": th.tensor([2, 0]),
        "left": th.randint(0, 256, (2, 1, 8, 8), dtype=th.uint8),
        "arm": th.tensor([[0.1, 0.2], [0.3, 0.4]]),
        "right": th.randint(0, 256, (2, 1, 8, 8), dtype=th.uint8),
    }
    features = policy.features(policy.critic, observations)
    parts = [
        observations["arm"],
        own.encoders[1](observations["left"] / 255),
        own.encoders[2](observations["right"] / 255),
        th.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]),
    ]
    th.testing.assert_close(features, th.cat(parts, dim=1))
    networks = [policy.critic, policy.critic_target, policy.bc_flow, policy.actor]
    owners = [{id(parameter) for parameter in network.features_extractor.parameters()} for network in networks]
    assert not any(owners[i] & owners[j] for i in range(4) for j in range(i))  # section 8: separate encoders
    assert th.equal(policy.features(policy.critic_target, observations), features)


# Normalized observations.


def vectors(n: int) -> np.ndarray:
    rows = np.random.default_rng(1).normal([3.0, -200.0, 0.01], [0.5, 40.0, 0.001], (n, 3))
    return np.column_stack([rows, np.full(n, 7.0)]).astype(np.float32)


def test_normalizer_starts_as_identity() -> None:
    """
    Without statistics nothing changes, images never do. A coordinate is divided by a thousandth of its mean at least, and
    clipped to ten standard deviations; one whose mean and standard deviation are 0 is not divided.
    """
    space = spaces.Dict({"x.y": spaces.Box(-1, 1, (5,)), "camera": spaces.Box(0, 255, (1, 8, 8), np.uint8)})
    normalizer = ObservationNormalizer(space)
    observations = {"x.y": th.rand(3, 5), "camera": th.rand(3, 1, 8, 8)}
    observations["x.y"][:, 2:] = th.tensor([[3.5, 4.004, 0.1], [13.5, 3.97, 0.2], [-17.0, 4.9, -30.0]])
    for key, part in normalizer(observations).items():
        assert th.equal(part, observations[key])
    mean, std = th.tensor([1.0, -2.0, 3.0, 4.0, 0.0]), th.tensor([2.0, 0.5, 1.0, 0.0, 0.0])
    normalizer.set_statistics("x.y", mean, std)
    normalized = normalizer(observations)
    assert th.equal(normalized["camera"], observations["camera"])
    expected = (observations["x.y"] - mean) / th.tensor([2.0, 0.5, 1.0, 0.004, 1.0])
    expected[:, 2:] = th.tensor([[0.5, 1.0, 0.1], [10.0, -7.5, 0.2], [-10.0, 10.0, -10.0]])
    th.testing.assert_close(normalized["x.y"], expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("as_dictionary", [False, True])
def test_normalized_observations(as_dictionary: bool, tmp_path: pathlib.Path) -> None:
    """
    Features of the data have mean 0 and standard deviation 1; a constant coordinate is only shifted; a saved model and a
    saved policy keep the statistics, and predict the same actions.
    """
    rows = vectors(500)
    box = spaces.Box(-np.inf, np.inf, (4,))
    column: Any = {"a.b": rows, "other": rows[:, :1]} if as_dictionary else rows
    space = spaces.Dict({"a.b": box, "other": spaces.Box(-np.inf, np.inf, (1,))}) if as_dictionary else box
    data = dict(observations=column, actions=np.zeros((500, 2)), rewards=np.zeros(500), terminations=np.ones(500))
    model = FQL("FlowPolicy", SpacesOnly(space), dataset=data, device="cpu", normalize_observations=True, policy_kwargs=SMALL)
    observations: Any = {key: th.from_numpy(part) for key, part in column.items()} if as_dictionary else th.from_numpy(rows)
    features = model.policy.features(model.policy.critic, observations)[:, :4].numpy()
    np.testing.assert_allclose(features.mean(axis=0), 0, atol=2e-3)
    np.testing.assert_allclose(features.std(axis=0), [1, 1, 1, 0], atol=2e-3)
    expected = (rows - rows.mean(axis=0)) / np.array([*rows[:, :3].std(axis=0), 1.0])
    np.testing.assert_allclose(features, expected, atol=5e-3)

    model.save(tmp_path / "model")
    model.policy.save(str(tmp_path / "policy"))
    for policy in (FQL.load(tmp_path / "model", device="cpu").policy, FQLPolicy.load(str(tmp_path / "policy"), device="cpu")):
        assert th.equal(policy.features(policy.critic, observations), model.policy.features(model.policy.critic, observations))
        action, _ = policy.predict(space.sample(), deterministic=True)
        assert action.shape == (2,)
        one = {key: part[0] for key, part in column.items()} if as_dictionary else rows[0]
        np.testing.assert_array_equal(policy.predict(one, deterministic=True)[0], model.predict(one, deterministic=True)[0])


def test_no_normalization_unless_asked_for() -> None:
    """Section 3: by default observations go into the networks as they are."""
    rows = vectors(50)
    data = dict(observations=rows, actions=np.zeros((50, 2)), rewards=np.zeros(50), terminations=np.ones(50))
    env = SpacesOnly(spaces.Box(-np.inf, np.inf, (4,)))
    model = FQL("FlowPolicy", env, dataset=data, device="cpu", policy_kwargs=SMALL)
    observations = th.from_numpy(rows)
    assert th.equal(model.policy.features(model.policy.actor, observations), observations)
