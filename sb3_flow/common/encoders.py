"""Features extractors for vectors, images and dictionaries."""

import math
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.preprocessing import get_flattened_obs_dim, is_image_space, is_image_space_channels_first
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn
from torch.nn import functional as F

from sb3_flow.common.networks import gelu_tanh, linear
from sb3_flow.common.type_aliases import TensorObs
from sb3_flow.common.warn import warn

#: Smallest side of an image, in pixels, for the warning about unrecognized images.
SIDE = 16


def subspaces(space: spaces.Space[Any]) -> dict[str, spaces.Space[Any]]:
    """The parts of an observation space by key; a space that is not a dictionary is one part with an empty key."""
    return dict(space.spaces) if isinstance(space, spaces.Dict) else {"": space}


def image_keys(space: spaces.Space[Any], normalized_image: bool = False) -> list[str]:
    """
    The keys of the parts that are images.

    :param space: Observation space
    :param normalized_image: Whether images are already scaled: any box of three axes is an image. If False, an image is uint8
        in [0, 255].
    """
    return [key for key, part in subspaces(space).items() if is_image_space(part, normalized_image=normalized_image)]


def discrete_from_zero(observations: PyTorchObs, space: spaces.Space[Any]) -> PyTorchObs:
    """
    Discrete observations counted from 0, as Stable-Baselines3 encodes them, whatever number their space starts with.

    :param observations: A raw batch
    :param space: Observation space
    """
    if isinstance(observations, dict):
        return {key: discrete_from_zero(part, subspaces(space)[key]) for key, part in observations.items()}  # type: ignore[misc]
    if isinstance(space, spaces.Discrete) and space.start:
        return observations - int(space.start)
    if isinstance(space, spaces.MultiDiscrete) and space.start.any():
        return observations - observations.new_tensor(space.start.tolist())
    return observations


def choices(space: spaces.Space[Any]) -> tuple[Any, Any] | None:
    """The smallest value and the number of values of each element of a discrete space; None for other spaces."""
    if isinstance(space, spaces.Discrete):
        return space.start, space.n
    if isinstance(space, spaces.MultiDiscrete):
        return space.start, space.nvec
    return (0, 2) if isinstance(space, spaces.MultiBinary) else None


def is_scaled_image(space: spaces.Space[Any]) -> bool:
    """Whether it is a space of images of floats in [0, 1]."""
    is_image = isinstance(space, spaces.Box) and len(space.shape) == 3 and space.dtype.kind == "f"
    return is_image and space.low.min() >= 0 and space.high.max() <= 1  # type: ignore[attr-defined]


def looks_like_an_image(part: spaces.Space[Any]) -> bool:
    """Whether a box that is not an image has the shape of one: two sides of 16 or more, and optionally 1, 3 or 4 channels."""
    if not isinstance(part, spaces.Box) or len(part.shape) not in (2, 3):
        return False
    sides = sorted(part.shape)
    if len(sides) == 2:
        return part.dtype == np.uint8 and sides[0] >= SIDE
    return sides[0] in (1, 3, 4) and sides[1] >= SIDE


#: A coordinate whose standard deviation is below this share of its mean is (almost) constant, and divided by that share.
LEAST_SPREAD = 1e-3
#: How many standard deviations from the mean a normalized coordinate may be, as in SB3's ``VecNormalize``.
CLIP = 10.0


class ObservationNormalizer(nn.Module):
    """
    Normalize vector observations by the mean and standard deviation of a dataset. Images are not changed.

    Before the statistics are set it is the identity. They are saved with the policy. The noise of a sensor that is almost
    constant is not amplified: a coordinate is divided by at least ``LEAST_SPREAD`` of its mean, and clipped to ``CLIP``
    standard deviations.

    :param observation_space: The space, after preprocessing by Stable-Baselines3
    :param normalized_image: Whether images are already scaled, see ``image_keys``
    """

    def __init__(self, observation_space: spaces.Space[Any], normalized_image: bool = False) -> None:
        super().__init__()
        images = image_keys(observation_space, normalized_image)
        self.keys = [
            key for key, part in subspaces(observation_space).items() if isinstance(part, spaces.Box) and key not in images
        ]
        for i, key in enumerate(self.keys):  # by number, because keys may have characters that are invalid in buffer names
            shape = subspaces(observation_space)[key].shape
            assert shape is not None
            self.register_buffer(f"mean_{i}", th.zeros(shape))
            self.register_buffer(f"std_{i}", th.ones(shape))
            self.register_buffer(f"clip_{i}", th.tensor(th.finfo(th.float32).max))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for i in range(len(self.keys)):  # models of version 0.1 did not clip
            state_dict.setdefault(f"{prefix}clip_{i}", th.tensor(th.finfo(th.float32).max))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def set_statistics(self, key: str, mean: th.Tensor, std: th.Tensor) -> None:
        """
        Set the statistics of a part.

        :param key: Key of the part; empty if the space is not a dictionary
        :param mean: Its mean, of the part's shape
        :param std: Its standard deviation. If it and the mean are zero, the coordinate is only shifted.
        """
        i = self.keys.index(key)
        std = th.maximum(std, LEAST_SPREAD * mean.abs())
        getattr(self, f"mean_{i}").copy_(mean)
        getattr(self, f"std_{i}").copy_(th.where(std > 1e-6, std, th.ones_like(std)))
        getattr(self, f"clip_{i}").fill_(CLIP)

    def _normalize(self, part: th.Tensor, i: int) -> th.Tensor:
        clip = getattr(self, f"clip_{i}")
        return th.div(part - getattr(self, f"mean_{i}"), getattr(self, f"std_{i}")).clamp(-clip, clip)

    def forward(self, observations: TensorObs) -> TensorObs:
        """
        :param observations: A preprocessed batch
        :return: The batch with normalized vectors
        """
        if isinstance(observations, th.Tensor):
            return self._normalize(observations, 0) if self.keys else observations
        normalized = dict(observations)
        for i, key in enumerate(self.keys):
            normalized[key] = self._normalize(observations[key], i)
        return normalized


class _ImpalaStack(nn.Module):
    """3x3 convolution, 3x3 max-pooling of stride 2, one residual block."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.conv, self.first, self.second = _conv(n_in, n_out), _conv(n_out, n_out), _conv(n_out, n_out)

    def forward(self, x: th.Tensor) -> th.Tensor:
        x = self.conv(x)
        # "Same" padding: even sides are padded with -inf at the end only, odd sides at both ends.
        height, width = x.shape[-2:]
        x = F.pad(x, (width % 2, 1, height % 2, 1), value=-math.inf)
        x = F.max_pool2d(x, kernel_size=3, stride=2)
        return x + self.second(F.relu(self.first(F.relu(x))))  # type: ignore[no-any-return]


def _conv(n_in: int, n_out: int, stride: int = 1) -> nn.Conv2d:
    conv = nn.Conv2d(n_in, n_out, kernel_size=3, stride=stride, padding=1)
    nn.init.xavier_uniform_(conv.weight)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return conv


class ImpalaEncoder(nn.Module):
    """
    The small IMPALA encoder (Espeholt et al., 2018) with one residual block per stack, as published with FQL.

    :param shape: Shape of an image, channels first
    :param features_dim: Number of features
    """

    def __init__(self, shape: tuple[int, ...], features_dim: int = 512) -> None:
        super().__init__()
        channels, height, width = shape
        widths = (16, 32, 32)
        self.stacks = nn.Sequential(*map(_ImpalaStack, (channels, *widths), widths))
        self.linear = linear(math.ceil(height / 8) * math.ceil(width / 8) * widths[-1], features_dim)

    def forward(self, images: th.Tensor) -> th.Tensor:
        """
        :param images: ``(B, channels, height, width)`` in [0, 1]
        :return: ``(B, features_dim)``
        """
        if images.device.type == "cpu":  # PyTorch's max-pooling on a CPU is eight times faster in this layout
            images = images.contiguous(memory_format=th.channels_last)
        x = F.relu(self.stacks(images))
        return gelu_tanh(self.linear(x.permute(0, 2, 3, 1).flatten(start_dim=1)))  # channels last, as published


class SmallEncoder(nn.Module):
    """
    Three 3x3 convolutions of stride 2, each followed by ReLU: a sixth of the operations of ``ImpalaEncoder`` for images of
    32 x 32 pixels.

    :param shape: Shape of an image, channels first
    :param features_dim: Number of features
    """

    def __init__(self, shape: tuple[int, ...], features_dim: int = 512) -> None:
        super().__init__()
        channels, height, width = shape
        widths = (16, 32, 32)
        self.convolutions = nn.ModuleList(map(_conv, (channels, *widths), widths, (2, 2, 2)))
        self.linear = linear(math.ceil(height / 8) * math.ceil(width / 8) * widths[-1], features_dim)

    def forward(self, images: th.Tensor) -> th.Tensor:
        """
        :param images: ``(B, channels, height, width)`` in [0, 1]
        :return: ``(B, features_dim)``
        """
        x = images
        for convolution in self.convolutions:
            x = F.relu(convolution(x))
        return gelu_tanh(self.linear(x.flatten(start_dim=1)))


#: Encoders of images by name.
ENCODERS: dict[str, type[nn.Module]] = {"impala": ImpalaEncoder, "small": SmallEncoder}


class Flatten(nn.Module):
    """``(B, *shape) -> (B, n)``, also for the shape ``()``."""

    def forward(self, part: th.Tensor) -> th.Tensor:
        return part.unsqueeze(-1).flatten(start_dim=1)


class FlowExtractor(BaseFeaturesExtractor):
    """
    Default features extractor: vectors are flattened, images are encoded, and parts of a dictionary are concatenated in order.

    :param observation_space: Any space that Stable-Baselines3 supports
    :param cnn_output_dim: Number of features of each image
    :param normalized_image: Whether images are already scaled, see ``image_keys``
    :param encoder: Encoder of images: ``"impala"``, as published with FQL, or ``"small"``, which is faster
    :raises ValueError: If there is no such encoder, or images have their channels last.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        cnn_output_dim: int = 512,
        normalized_image: bool = False,
        encoder: str = "impala",
    ) -> None:
        if encoder not in ENCODERS:
            raise ValueError(f"There is no `encoder` {encoder!r}; choose one of {', '.join(ENCODERS)}.")
        parts = subspaces(observation_space)
        images = image_keys(observation_space, normalized_image)
        sizes = [cnn_output_dim if key in images else get_flattened_obs_dim(part) for key, part in parts.items()]
        super().__init__(observation_space, features_dim=sum(sizes))
        for key, part in parts.items():
            if key in images and not is_image_space_channels_first(part):  # type: ignore[arg-type]
                raise ValueError(
                    f"Images of shape {part.shape} have their channels last; transpose them: (channels, height, width)."
                )
            if key not in images and looks_like_an_image(part):
                warn(
                    f"Observations of shape {part.shape} look like images, and are flattened. Images must be uint8 in "
                    "[0, 255], with three axes, one of them channels. For images that are already scaled to floats, pass "
                    "policy_kwargs={'normalize_images': False}."
                )
        self.keys = list(parts)
        self.encoders = nn.ModuleList(
            ENCODERS[encoder](part.shape, cnn_output_dim) if key in images else Flatten() for key, part in parts.items()
        )

    def forward(self, observations: TensorObs) -> th.Tensor:
        """
        :param observations: A preprocessed batch
        :return: ``(B, features_dim)``
        """
        if isinstance(observations, th.Tensor):
            return self.encoders[0](observations)  # type: ignore[no-any-return]
        parts = [encoder(observations[key]) for key, encoder in zip(self.keys, self.encoders, strict=True)]
        return th.cat(parts, dim=1)
