"""The networks of FPMD, and how it acts."""

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
#: Sizes of the embedding of a time, and of the hidden layer that makes it.
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
    From features, a point and one or more times to a velocity; each time has an embedding of its own.

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
        :param context: What ``context`` returned for the features
        :param rest: Points ``(B, dim)``, then times ``(B, 1)`` each
        :return: Velocities, ``(B, dim)``
        """
        x, *times = rest
        return super().forward(context, x, *(embed(t) for embed, t in zip(self.embeddings, times, strict=True)))


class FPMDPolicy(FlowPolicy):
    """
    A flow with its moving average, critics with their targets, and the scale of the exploration's noise.

    With images, all of them share one encoder, which has no target and is trained by the critics alone, and each has a trunk
    of its own behind it, see ``pixels.py``.

    Heads: ``"one_step"`` (one step of the average flow), ``"flow"`` (all its steps; FPMD-R only), ``"particles"`` (the best
    of many, by the critics), ``"explore"`` (the best of many, with noise: how FPMD acts in training).

    :param observation_space: Observation space
    :param action_space: Any finite ``Box``
    :param lr_schedule: Learning rate of the critics as a function of the remaining progress (from 1 to 0)
    :param net_arch: Widths of the hidden layers of every network
    :param activation: Name of the activation
    :param critic_layer_norm: Whether layer norm follows each activation of the critics
    :param features_extractor_class: With images, by default, ``PixelEncoder``, which is shared; any other class gives each
        network an encoder of its own. Without images ``FlowExtractor``.
    :param flow: ``"rectified"`` (FPMD-R) or ``"mean"`` (FPMD-M)
    :param flow_steps: Steps of the flow while learning; of a mean flow it is one.
    :param particles: How many actions are sampled to find the best
    :param init_noise_scale: Standard deviation of the noise that actions are sampled from; the flow learns with 1
    :param alpha: Scale of the exploration's noise at the start
    :param clip_final: Whether actions that explore are clipped once more behind their noise
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
            features_extractor_class = PixelEncoder if image_keys(observation_space) else FlowExtractor
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
            names.remove("flow")  # which is one step
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
        #: Logarithm of alpha. The noise of exploration is a tenth of alpha; see ``FPMD.cool``.
        self.log_alpha = nn.Parameter(th.tensor(math.log(alpha)), requires_grad=False)
        self.register_buffer("value_statistics", th.tensor([0.0, 1.0]))

    def make_optimizers(self, lr: float) -> None:
        """One optimizer for the critics and the encoder, one for the flow, which learns at another rate, one for alpha."""
        flow = {id(parameter) for parameter in self.flow.parameters()}
        self.optimizer = self.make_optimizer((p for p in self.parameters() if p.requires_grad and id(p) not in flow), lr)
        self.flow_optimizer = self.make_optimizer(self.flow.parameters(), lr)
        self.alpha_optimizer = th.optim.Adam([self.log_alpha], fused=True)  # the other kinds read its count of steps

    # Networks applied to observations.

    def encode(self, observations: Observed) -> Observed:
        """
        Observations behind the encoder that the networks share, so that several of them need it once.

        :param observations: A raw batch
        :return: The latents; the observations themselves where there is no such encoder, or where they are latents already
        """
        if self.encoder is None or isinstance(observations, Encoded):
            return observations
        return Encoded(self.extract_features(observations, self.encoder))

    def features(self, network: Network, observations: Observed) -> th.Tensor:
        """
        :param network: Whose features
        :param observations: A raw batch, or what ``encode`` made of it
        :return: ``(B, features_dim)``, or ``(n_critics, B, features_dim)`` of critics with trunks of their own
        """
        encoded = self.encode(observations)
        if isinstance(encoded, Encoded):
            return network.features_extractor(encoded.latents)  # type: ignore[no-any-return]
        return super().features(network, encoded)

    @property
    def noise_std(self) -> th.Tensor:
        """Standard deviation of the noise of exploration."""
        return 0.1 * self.log_alpha.exp()

    @property
    def noise_dim(self) -> int:
        copies = {"particles": self.particles, "explore": self.particles + 1}
        return copies.get(self.sampler, 1) * self.action_dim

    def _fixed_noise(self) -> th.Tensor:
        # Particles that all start from zero would be one: only the first does, and nothing is added.
        noise = super()._fixed_noise()
        if self.sampler in ("particles", "explore"):
            noise = th.randn(noise.shape, generator=th.Generator().manual_seed(0))
            noise[:, : self.action_dim] = 0.0
        if self.sampler == "explore":
            noise[:, -self.action_dim :] = 0.0
        return noise

    def sample(self, network: Network, observations: Observed, noise: th.Tensor, n_steps: int, copies: int = 1) -> th.Tensor:
        """
        Actions of a flow, not clipped.

        :param network: The flow, or its moving average
        :param observations: A raw batch, or what ``encode`` made of it
        :param noise: Standard normal, ``(copies * B, action_dim)``, that of the first copy first
        :param n_steps: Euler steps; a mean flow makes one whatever this is
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
        The best of many actions, by the lower of the critics.

        :param network: The flow, or its moving average
        :param observations: A raw batch, or what ``encode`` made of it
        :param noise: Standard normal, ``(B, particles * action_dim)``
        :param added: What is added to each of them before they are valued, of the same shape, or nothing
        :return: The actions in [-1, 1], ``(B, action_dim)``, and the mean value of all particles, not clipped, ``(B,)``
        """
        n = len(noise)
        observations = self.encode(observations)
        actions = self.sample(network, observations, self.copy_by_copy(noise), self.flow_steps, self.particles)
        if added is not None:
            actions = actions + self.copy_by_copy(added)
        qs = self.q_values(self.critic, observations, actions, copies=self.particles)  # type: ignore[arg-type]
        q = qs.amin(dim=0).view(self.particles, n)
        best = actions.view(self.particles, n, -1)[q.argmax(dim=0), th.arange(n, device=noise.device)]
        return best.clamp(-1, 1), q.mean(dim=0)

    def copy_by_copy(self, noise: th.Tensor) -> th.Tensor:
        """``(B, particles * action_dim) -> (particles * B, action_dim)``, all of the first particle first."""
        return noise.view(len(noise), self.particles, -1).transpose(0, 1).flatten(end_dim=1)

    def score(self, observations: Observed, actions: th.Tensor) -> th.Tensor:
        """What the best action is chosen by: the lowest of the critics, ``(B,)``."""
        return self.q_values(self.critic, observations, actions).amin(dim=0)  # type: ignore[arg-type]

    def exploring(self, generator: th.Generator) -> "FPMDPolicy":
        return super().exploring(generator).with_sampler("explore")

    def act_one_step(self, observations: TensorObs, noise: th.Tensor) -> th.Tensor:
        """One step of the average flow, then clipped to [-1, 1]: one pass through one network."""
        return self.sample(self.flow_target, observations, noise, 1).clamp(-1, 1)

    def act_flow(self, observations: TensorObs, noise: th.Tensor) -> th.Tensor:
        """All steps of the average flow, then clipped to [-1, 1]."""
        return self.sample(self.flow_target, observations, noise, self.flow_steps).clamp(-1, 1)

    def act_particles(self, observations: TensorObs, noise: th.Tensor) -> th.Tensor:
        """The best of many actions of the average flow: noise is ``(B, particles * action_dim)``."""
        return self.best(self.flow_target, observations, noise)[0]

    def act_explore(self, observations: TensorObs, noise: th.Tensor) -> th.Tensor:
        """The same with noise added, ``(B, (particles + 1) * action_dim)``, and clipped again where ``clip_final`` says so."""
        particles, added = noise[:, : -self.action_dim], noise[:, -self.action_dim :]
        actions = self.act_particles(observations, particles) + self.noise_std * added
        return actions.clamp(-1, 1) if self.clip_final else actions
