"""The networks of FPMD, and its samplers."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch as th
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import Schedule
from torch import nn

from sb3_flow.common.encoders import FlowExtractor, image_keys
from sb3_flow.common.flow import euler
from sb3_flow.common.networks import MLP, linear, mish, sinusoid
from sb3_flow.common.policies import FlowPolicy, Network
from sb3_flow.common.type_aliases import TensorObs
from sb3_flow.fpmd.mean_flow import mean_flow_step
from sb3_flow.fpmd.pixels import Encoded, PixelEncoder, Trunk, Trunks

#: A raw batch of observations, or their latents.
Observed = TensorObs | Encoded
#: Sizes of the time embedding and of its hidden layer.
TIME_DIM, TIME_HIDDEN = 16, 32


class TimeEmbedding(nn.Module):
    """Sines and cosines of a time in [0, 1], then a small network: ``(B, 1) -> (B, 16)``."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = linear(TIME_DIM, TIME_HIDDEN), linear(TIME_HIDDEN, TIME_DIM)

    def forward(self, t: th.Tensor) -> th.Tensor:
        waves = sinusoid(t, TIME_DIM, intervals=TIME_DIM // 2) / math.sqrt(TIME_DIM)
        return self.second(mish(self.first(waves)))  # type: ignore[no-any-return]


class TimedMLP(MLP):
    """
    Maps features, a point and one or more times to a velocity; each time has its own embedding.

    :param n_features: Size of the features
    :param dim: Size of the points
    :param n_times: Number of times
    :param net_arch: Widths of the hidden layers
    :param activation: Name of the activation
    """

    def __init__(self, n_features: int, dim: int, n_times: int, net_arch: Sequence[int], activation: str) -> None:
        super().__init__(n_features, dim + n_times * TIME_DIM, dim, net_arch, activation)
        self.embeddings = nn.ModuleList(TimeEmbedding() for _ in range(n_times))

    def forward(self, context: th.Tensor, *rest: th.Tensor) -> th.Tensor:
        """
        :param context: As returned by ``context``
        :param rest: Points ``(B, dim)``, then times ``(B, 1)`` each
        :return: Velocities, ``(B, dim)``
        """
        x, *times = rest
        return super().forward(context, x, *(embed(t) for embed, t in zip(self.embeddings, times, strict=True)))


class FPMDPolicy(FlowPolicy):
    """
    A flow with its moving average, critics with their targets, and the scale of the exploration noise.

    For images, all networks share one encoder, which has no target and is trained by the critics' loss only; each network has
    its own trunk after it, see ``pixels.py``.

    Samplers: ``"one_step"`` (the default: one step of the average flow), ``"flow"`` (all its steps; FPMD-R only),
    ``"particles"`` (the best of several samples, by the critics), ``"explore"`` (the same with noise, for rollouts).

    :param observation_space: Observation space
    :param action_space: Any finite ``Box``
    :param lr_schedule: Learning rate of the critics as a function of the remaining progress (from 1 to 0)
    :param net_arch: Widths of the hidden layers of every network
    :param activation: Name of the activation
    :param critic_layer_norm: Whether layer norm follows each activation of the critics
    :param features_extractor_class: None: ``PixelEncoder`` for images, which is shared, else ``FlowExtractor``, also where
        ``features_extractor_kwargs`` names an ``encoder``. With any other class each network has its own encoder.
    :param flow: ``"rectified"`` (FPMD-R) or ``"mean"`` (FPMD-M)
    :param flow_steps: Euler steps of the flow while learning; a mean flow always makes one step
    :param particles: Number of samples from which the best is chosen
    :param init_noise_scale: Standard deviation of the noise from which actions are sampled; the flow is trained with 1
    :param alpha: Initial scale of the exploration noise
    :param clip_final: Whether actions are clipped again after exploration noise was added
    :param kwargs: The other arguments of ``FlowPolicy``
    """

    #: Running mean and standard deviation of the values of improved actions, ``(2,)``.
    value_statistics: th.Tensor

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Box,
        lr_schedule: Schedule,
        net_arch: Sequence[int] = (256, 256, 256),
        activation: str = "mish",
        critic_layer_norm: bool = False,
        features_extractor_class: type[BaseFeaturesExtractor] | None = None,
        **kwargs: Any,
    ) -> None:
        if features_extractor_class is None:
            named = "encoder" in (kwargs.get("features_extractor_kwargs") or {})  # an encoder of `FlowExtractor`
            features_extractor_class = PixelEncoder if image_keys(observation_space) and not named else FlowExtractor
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            net_arch=net_arch,
            activation=activation,
            critic_layer_norm=critic_layer_norm,
            features_extractor_class=features_extractor_class,
            **kwargs,
        )

    def build(
        self,
        flow: Literal["rectified", "mean"] = "rectified",
        flow_steps: int = 20,
        particles: int = 32,
        init_noise_scale: float = 0.5,
        alpha: float = 5.0,
        clip_final: bool = True,
    ) -> None:
        for name, value in (("flow_steps", flow_steps), ("particles", particles)):
            if value < 1:
                raise ValueError(f"`{name}` is {value}; it must be at least 1.")
        self.is_mean_flow = flow == "mean"
        self.flow_steps, self.particles, self.init_noise_scale = flow_steps, particles, init_noise_scale
        self.clip_final = clip_final
        names = ["one_step", "flow", "particles", "explore"]
        if self.is_mean_flow:
            names.remove("flow")  # a mean flow makes one step only
        self.samplers = {name: f"act_{name}" for name in names}
        n_times = 2 if self.is_mean_flow else 1
        self.encoder: PixelEncoder | None = None
        trunk = trunks = None
        if issubclass(self.features_extractor_class, PixelEncoder):
            self.encoder = PixelEncoder(self.observation_space, **self.features_extractor_kwargs)
            trunk, trunks = Trunk(self.encoder), Trunks(self.encoder, self.n_critics)
        self.flow = self.make_network(lambda n: TimedMLP(n, self.action_dim, n_times, self.net_arch, self.activation), trunk)
        self.flow_target = self.make_target(self.flow)
        self.critic = self.make_critic(trunks)
        self.critic_target = self.make_target(self.critic)
        #: Logarithm of alpha. The exploration noise is a tenth of alpha; see ``FPMD.update_alpha``.
        self.log_alpha = nn.Parameter(th.tensor(math.log(alpha)), requires_grad=False)
        self.register_buffer("value_statistics", th.tensor([0.0, 1.0]))

    def make_optimizers(self, lr: float) -> None:
        """Separate optimizers for critics and encoder, for the flow, and for alpha, which have different learning rates."""
        flow = {id(parameter) for parameter in self.flow.parameters()}
        self.optimizer = self.make_optimizer((p for p in self.parameters() if p.requires_grad and id(p) not in flow), lr)
        self.flow_optimizer = self.make_optimizer(self.flow.parameters(), lr)
        self.alpha_optimizer = th.optim.Adam([self.log_alpha], fused=True)  # other implementations synchronize the host

    # Networks applied to observations.

    def encode(self, observations: Observed) -> Observed:
        """
        Apply the shared encoder, so that several networks can use the result.

        :param observations: A raw batch, or encoded observations
        :return: Encoded observations; the raw batch if there is no shared encoder
        """
        if self.encoder is None or isinstance(observations, Encoded):
            return observations
        return Encoded(self.extract_features(observations, self.encoder))

    def features(self, network: Network, observations: Observed) -> th.Tensor:
        """
        Features of a network.

        :param network: The network
        :param observations: A raw batch, or encoded observations
        :return: ``(B, features_dim)``, or ``(n_critics, B, features_dim)`` for critics with separate trunks
        """
        encoded = self.encode(observations)
        if isinstance(encoded, Encoded):
            return network.features_extractor(encoded.latents)  # type: ignore[no-any-return]
        return super().features(network, encoded)

    @property
    def noise_std(self) -> th.Tensor:
        """Standard deviation of the exploration noise."""
        return 0.1 * self.log_alpha.exp()

    @property
    def noise_dim(self) -> int:
        copies = {"particles": self.particles, "explore": self.particles + 1}
        return copies.get(self.sampler, 1) * self.action_dim

    def _fixed_noise(self) -> th.Tensor:
        # Only the first particle starts from zero, because all particles would be equal otherwise. No noise is added.
        noise = super()._fixed_noise()
        if self.sampler in ("particles", "explore"):
            noise = th.randn(noise.shape, generator=th.Generator().manual_seed(0))
            noise[:, : self.action_dim] = 0.0
        if self.sampler == "explore":
            noise[:, -self.action_dim :] = 0.0
        return noise

    def sample(self, network: Network, observations: Observed, noise: th.Tensor, n_steps: int, copies: int = 1) -> th.Tensor:
        """
        Sample actions from a flow, not clipped.

        :param network: The flow, or its moving average
        :param observations: A raw batch, or encoded observations
        :param noise: Standard normal, ``(copies * B, action_dim)``; rows of the first copy come first
        :param n_steps: Euler steps; ignored by a mean flow
        :param copies: Number of actions for each observation
        :return: ``(copies * B, action_dim)``
        """
        field: Any = self.velocity(network, observations, copies)  # type: ignore[arg-type]
        start = self.init_noise_scale * noise
        return mean_flow_step(field, start) if self.is_mean_flow else euler(field, start, n_steps)

    def best(
        self, network: Network, observations: Observed, noise: th.Tensor, added: th.Tensor | None = None
    ) -> tuple[th.Tensor, th.Tensor]:
        """
        The best of several actions, by the minimum of the critics.

        :param network: The flow, or its moving average
        :param observations: A raw batch, or encoded observations
        :param noise: Standard normal, ``(B, particles * action_dim)``
        :param added: Noise that is added to the actions before they are evaluated, of the same shape; None: no noise
        :return: The actions in [-1, 1], ``(B, action_dim)``, and the mean value of all particles, not clipped, ``(B,)``
        """
        n = noise.shape[0]
        observations = self.encode(observations)
        actions = self.sample(network, observations, self.particles_first(noise), self.flow_steps, self.particles)
        if added is not None:
            actions = actions + self.particles_first(added)
        qs = self.q_values(self.critic, observations, actions, copies=self.particles)  # type: ignore[arg-type]
        q = qs.amin(dim=0).view(self.particles, n)
        best = actions.view(self.particles, n, -1)[q.argmax(dim=0), th.arange(n, device=noise.device)]
        return best.clamp(-1, 1), q.mean(dim=0)

    def particles_first(self, noise: th.Tensor) -> th.Tensor:
        """``(B, particles * action_dim) -> (particles * B, action_dim)``; rows of the first particle come first."""
        return noise.view(noise.shape[0], self.particles, -1).transpose(0, 1).flatten(end_dim=1)

    def score(self, observations: Observed, actions: th.Tensor) -> th.Tensor:
        """The score by which the best action is chosen: the minimum of the critics, ``(B,)``."""
        return self.q_values(self.critic, observations, actions).amin(dim=0)  # type: ignore[arg-type]

    def exploring(self, generator: th.Generator) -> "FPMDPolicy":
        return super().exploring(generator).with_sampler("explore")

    def act_one_step(self, observations: TensorObs, noise: th.Tensor) -> th.Tensor:
        """One step of the average flow, clipped to [-1, 1]: one forward pass of one network."""
        return self.sample(self.flow_target, observations, noise, 1).clamp(-1, 1)

    def act_flow(self, observations: TensorObs, noise: th.Tensor) -> th.Tensor:
        """All steps of the average flow, clipped to [-1, 1]."""
        return self.sample(self.flow_target, observations, noise, self.flow_steps).clamp(-1, 1)

    def act_particles(self, observations: TensorObs, noise: th.Tensor) -> th.Tensor:
        """The best of several actions of the average flow, from noise ``(B, particles * action_dim)``."""
        return self.best(self.flow_target, observations, noise)[0]

    def act_explore(self, observations: TensorObs, noise: th.Tensor) -> th.Tensor:
        """The same with exploration noise, from noise ``(B, (particles + 1) * action_dim)``."""
        particles, added = noise[:, : -self.action_dim], noise[:, -self.action_dim :]
        actions = self.act_particles(observations, particles) + self.noise_std * added
        return actions.clamp(-1, 1) if self.clip_final else actions
