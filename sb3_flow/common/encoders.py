"""From observations to features: what each network sees of a vector, an image or a dictionary."""

import math
from typing import Any

import torch as th
from gymnasium import spaces
from stable_baselines3.common.preprocessing import get_flattened_obs_dim, is_image_space
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn
from torch.nn import functional as F

from sb3_flow.common.networks import gelu_tanh, linear
from sb3_flow.common.type_aliases import TensorObs


def subspaces(space: spaces.Space[Any]) -> dict[str, spaces.Space[Any]]:
    """The parts of an observation space by key; a space that is no dictionary is one part, under the empty key."""
    return dict(space.spaces) if isinstance(space, spaces.Dict) else {"": space}


def image_keys(space: spaces.Space[Any]) -> list[str]:
    """The keys of those parts that are images (uint8 in [0, 255], three axes)."""
    return [key for key, part in subspaces(space).items() if is_image_space(part)]


#: A coordinate whose standard deviation is below this share of its mean is (almost) constant, and divided by that share.
LEAST_SPREAD = 1e-3
#: How many standard deviations from the mean a normalized coordinate may be, as in SB3's ``VecNormalize``.
CLIP = 10.0


class ObservationNormalizer(nn.Module):
    """
    Shifts and scales vector observations by the mean and standard deviation of a dataset; images pass unchanged.

    It starts as the identity, and its statistics are saved with the policy. Noise of an encoder that stood still is not blown
    up: a coordinate is divided by ``LEAST_SPREAD`` of its mean at least, and clipped to ``CLIP`` standard deviations.

    :param observation_space: The space, after preprocessing by Stable-Baselines3
    """

    def __init__(self, observation_space: spaces.Space[Any]) -> None:
        super().__init__()
        self.keys = [
            key
            for key, part in subspaces(observation_space).items()
            if isinstance(part, spaces.Box) and not is_image_space(part)
        ]
        for i, key in enumerate(self.keys):  # by number, because a key may hold characters that no buffer name may
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
        :param key: The part of the observation; empty where the space is no dictionary
        :param mean: Its mean, of the part's shape
        :param std: Its standard deviation. Where it is zero, and the mean is too, the coordinate is only shifted.
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
        :param observations: A batch, already preprocessed (floats)
        :return: The same with its vectors normalised
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
        # "Same" padding: an even side gets one column of -inf on its far end only, an odd one a column on both ends.
        height, width = x.shape[-2:]
        x = F.pad(x, (width % 2, 1, height % 2, 1), value=-math.inf)
        x = F.max_pool2d(x, kernel_size=3, stride=2)
        return x + self.second(F.relu(self.first(F.relu(x))))  # type: ignore[no-any-return]


def _conv(n_in: int, n_out: int) -> nn.Conv2d:
    conv = nn.Conv2d(n_in, n_out, kernel_size=3, padding=1)
    nn.init.xavier_uniform_(conv.weight)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return conv


class ImpalaEncoder(nn.Module):
    """
    The small IMPALA encoder (Espeholt et al., 2018) with one residual block a stack, as published with FQL.

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
        x = F.relu(self.stacks(images))
        return gelu_tanh(self.linear(x.permute(0, 2, 3, 1).flatten(start_dim=1)))  # channels last, as published


class Flatten(nn.Module):
    """One axis for each sample: ``(B, *shape) -> (B, n)``, also of spaces whose shape is ``()``."""

    def forward(self, part: th.Tensor) -> th.Tensor:
        return part.unsqueeze(-1).flatten(start_dim=1)


class FlowExtractor(BaseFeaturesExtractor):
    """
    Picks by the space: vectors are flattened, images encoded, and a dictionary's parts concatenated in its order.

    :param observation_space: Any space that Stable-Baselines3 supports
    :param cnn_output_dim: Number of features of each image
    """

    def __init__(self, observation_space: spaces.Space[Any], cnn_output_dim: int = 512) -> None:
        parts = subspaces(observation_space)
        images = image_keys(observation_space)
        sizes = [cnn_output_dim if key in images else get_flattened_obs_dim(part) for key, part in parts.items()]
        super().__init__(observation_space, features_dim=sum(sizes))
        self.keys = list(parts)
        self.encoders = nn.ModuleList(
            ImpalaEncoder(part.shape, cnn_output_dim) if key in images else Flatten()  # type: ignore[arg-type]
            for key, part in parts.items()
        )

    def forward(self, observations: TensorObs) -> th.Tensor:
        """
        :param observations: A batch, already preprocessed
        :return: ``(B, features_dim)``
        """
        if isinstance(observations, th.Tensor):
            return self.encoders[0](observations)  # type: ignore[no-any-return]
        parts = [encoder(observations[key]) for key, encoder in zip(self.keys, self.encoders, strict=True)]
        return th.cat(parts, dim=1)
