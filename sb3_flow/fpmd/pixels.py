"""Images in FPMD: a shared encoder, which is trained by the critics' loss, and a trunk for each network."""

import math
from typing import Any, NamedTuple

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.preprocessing import get_flattened_obs_dim
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn
from torch.nn import functional as F

from sb3_flow.common.encoders import Flatten, image_keys, subspaces
from sb3_flow.common.networks import linear
from sb3_flow.common.type_aliases import TensorObs

CHANNELS, KERNEL = 32, 3
#: The stride of each convolution.
STRIDES = (2, 1, 1, 1)


class Encoded(NamedTuple):
    """
    Observations, encoded by the shared encoder of a policy. Each network computes its own features from them.

    :param latents: ``(B, latent_dim)``
    """

    latents: th.Tensor


class Convolutions(nn.Module):
    """
    Four 3x3 convolutions of 32 channels without padding, each followed by ReLU; fewer if the image is too small for four.

    :param shape: Shape of an image, channels first
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        channels, *sides = shape
        layers = []
        for stride in STRIDES:
            if min(sides) < KERNEL:
                break
            layer = nn.Conv2d(channels, CHANNELS, KERNEL, stride)
            nn.init.xavier_uniform_(layer.weight)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
            layers.append(layer)
            channels, sides = CHANNELS, [(side - KERNEL) // stride + 1 for side in sides]
        self.layers = nn.ModuleList(layers)
        self.n_out = channels * math.prod(sides)

    def forward(self, images: th.Tensor) -> th.Tensor:
        """
        :param images: ``(B, channels, height, width)`` in [0, 1]
        :return: ``(B, n_out)``
        """
        x = images - 0.5
        for layer in self.layers:
            x = F.relu(layer(x))
        return x.flatten(start_dim=1)


class PixelEncoder(BaseFeaturesExtractor):
    """
    The shared encoder: convolutions of each image, followed by all other observations, unchanged.

    :param observation_space: An image, or a dictionary with one or more of them
    :param cnn_output_dim: Number of features that each trunk computes from the outputs of the convolutions
    """

    def __init__(self, observation_space: spaces.Space[Any], cnn_output_dim: int = 50) -> None:
        parts, images = subspaces(observation_space), image_keys(observation_space)
        others = [key for key in parts if key not in images]
        convolutions = [Convolutions(parts[key].shape) for key in images]  # type: ignore[arg-type]
        n_latents = sum(part.n_out for part in convolutions)
        n_others = sum(get_flattened_obs_dim(parts[key]) for key in others)
        super().__init__(observation_space, features_dim=n_latents + n_others)
        self.images, self.others = images, others
        self.n_latents, self.n_others, self.cnn_output_dim = n_latents, n_others, cnn_output_dim
        self.convolutions = nn.ModuleList(convolutions)
        self.flatten = Flatten()

    def forward(self, observations: TensorObs) -> th.Tensor:
        """
        :param observations: A preprocessed batch
        :return: ``(B, features_dim)``, images first
        """
        if isinstance(observations, th.Tensor):
            return self.convolutions[0](observations)  # type: ignore[no-any-return]
        parts = [convolve(observations[key]) for key, convolve in zip(self.images, self.convolutions, strict=True)]
        return th.cat([*parts, *(self.flatten(observations[key]) for key in self.others)], dim=1)


class Trunk(BaseFeaturesExtractor):
    """
    From the shared encoder's latents to the features of one network: linear layer, layer norm and tanh for the latents of
    images; the rest is unchanged.

    :param encoder: The shared encoder
    """

    def __init__(self, encoder: PixelEncoder) -> None:
        latents = spaces.Box(-np.inf, np.inf, (encoder.features_dim,))
        super().__init__(latents, features_dim=encoder.cnn_output_dim + encoder.n_others)
        self.n_latents = encoder.n_latents
        self.linear = linear(encoder.n_latents, encoder.cnn_output_dim)
        self.norm = nn.LayerNorm(encoder.cnn_output_dim)

    def forward(self, latents: th.Tensor) -> th.Tensor:
        """
        :param latents: ``(B, encoder.features_dim)``
        :return: ``(B, features_dim)``
        """
        features = th.tanh(self.norm(self.linear(latents[:, : self.n_latents])))
        return th.cat([features, latents[:, self.n_latents :]], dim=1)


class Trunks(BaseFeaturesExtractor):
    """
    The trunks of an ensemble of critics, one for each critic.

    :param encoder: The shared encoder
    :param n_members: Number of critics
    """

    def __init__(self, encoder: PixelEncoder, n_members: int) -> None:
        trunks = [Trunk(encoder) for _ in range(n_members)]
        super().__init__(spaces.Box(-np.inf, np.inf, (encoder.features_dim,)), features_dim=trunks[0].features_dim)
        self.members = nn.ModuleList(trunks)

    def forward(self, latents: th.Tensor) -> th.Tensor:
        """
        :param latents: ``(B, encoder.features_dim)``
        :return: ``(n_members, B, features_dim)``
        """
        return th.stack([trunk(latents) for trunk in self.members])
