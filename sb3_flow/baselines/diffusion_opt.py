"""FlowOpt with a diffusion model instead of the flow. A baseline for FlowOpt."""

import math
from typing import ClassVar

import torch as th
from stable_baselines3.common.policies import BasePolicy

from sb3_flow.common.policies import aliases
from sb3_flow.common.type_aliases import Velocity
from sb3_flow.flow_opt.flow_opt import FlowOpt, FlowOptNoise
from sb3_flow.flow_opt.policies import FlowOptPolicy

#: Number of noise levels in training.
LEVELS = 1000


class DiffusionOptPolicy(FlowOptPolicy):
    """As ``FlowOptPolicy``, with ``flow_steps`` steps of DDIM (Song, Meng and Ermon, 2021) from noise to a proposal."""

    def integrate(self, velocity: Velocity, noise: th.Tensor) -> th.Tensor:
        """Denoise samples, ``(B, action_dim)``, by DDIM."""
        x, n = noise, self.flow_steps
        for i in range(n):
            t = x.new_full((len(x), 1), i / n)
            data, rest = level(t)
            v = velocity(x, t)
            x1, epsilon = data * x - rest * v, rest * x + data * v
            data, rest = level(t + 1 / n)
            x = data * x1 + rest * epsilon
        return x


class DiffusionOpt(FlowOpt):
    """
    As ``FlowOpt``, with a denoising diffusion model of the same network, data, batches and filter.

    Noise levels follow a cosine, and the network predicts ``v`` (Salimans and Ho, 2022)::

        x_t = a x_1 + s x_0,  v = a x_0 - s x_1,  a = sin(pi t / 2), s = cos(pi t / 2)

    Time runs from noise at 0 to data at 1, as everywhere in this package.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = aliases(DiffusionOptPolicy)
    policy: DiffusionOptPolicy

    def draw_noise(self, n: int) -> FlowOptNoise:
        """As for ``FlowOpt``, with times rounded to noise levels."""
        noise = super().draw_noise(n)
        return noise._replace(t=(noise.t * LEVELS).floor() / LEVELS)

    def path(self, x1: th.Tensor, noise: FlowOptNoise) -> tuple[th.Tensor, th.Tensor]:
        """``x_t`` and ``v``."""
        data, rest = level(noise.t)
        return data * x1 + rest * noise.x0, data * noise.x0 - rest * x1


def level(t: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
    """Coefficients of data and of noise at a time; their squares add up to 1."""
    angle = math.pi / 2 * t
    return angle.sin(), angle.cos()
