"""Streaming flow policy (Jiang et al., CoRL 2025, arXiv 2505.21851)."""

from typing import Any, ClassVar, NamedTuple

import torch as th
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from torch.nn import functional as F

from sb3_flow.common.data.offline_buffer import Window
from sb3_flow.common.effects import warn_without_effect
from sb3_flow.common.policies import aliases
from sb3_flow.common.type_aliases import Batch, Metrics
from sb3_flow.imitation.imitation import Imitation
from sb3_flow.streaming_flow.policies import StartFrom, StreamingFlowPolicy
from sb3_flow.streaming_flow.tubes import latent_share, latent_std, latent_velocity, segment, tube_std, velocity


class StreamingFlowNoise(NamedTuple):
    """
    All random numbers of one update.

    :param t: Flow time, uniform in [0, 1], ``(B, 1)``
    :param eta: Position in the tube, standard normal, ``(B, action_dim)``
    :param z_0: The latent at ``t = 0``, standard normal, ``(B, action_dim)``; ``(B, 0)`` in the deterministic variant
    """

    t: th.Tensor
    eta: th.Tensor
    z_0: th.Tensor


class StreamingFlow(Imitation):
    """
    Streaming flow policy: imitation by a flow in the space of actions, whose integral is the sequence of actions.

    A demonstrated chunk is a curve ``xi(t)`` through the last action and the next ``H`` actions, see ``tubes``. The velocity
    field learns to follow the curve and to return to it within a thin tube::

        a = xi + sigma_0 exp(-k t) eta
        L = E[|v(a, t | h) - (xi' - k (a - xi))|^2]                                                        tube_loss

    The stochastic variant has an additional latent ``z``, which chooses between demonstrations::

        a = xi + sigma_0 exp(-k t) eta + sigma_r t z_0,  z = (1 - (1 - sigma_1) t) z_0 + t xi
        L = E[|v_a - (xi' - k (a - xi) + sigma_r (1 + k t) z_0)|^2] / 2
          + E[|v_z - (xi + t xi' - (1 - sigma_1) z_0)|^2] / 2                                              latent_tube_loss

    ``h`` is the history of observations; squared errors are means over dimensions. To act, the field is integrated by Euler's
    method, ``a <- a + v(a, j / H | h) / H``, and each intermediate value is executed immediately: one evaluation of the
    network per action. After ``n_action_steps`` actions the next plan starts at the last action. Actions should be target
    positions, not displacements; see ``envs.AbsoluteActionWrapper``.

    Each call of ``predict`` makes one step and keeps the plan in its state. ``deterministic=True`` starts plans exactly at the
    last action, with ``z = 0``. ``deterministic=False`` adds noise with the standard deviation ``sigma_0`` to the start; in
    the stochastic variant, it starts at the last action with a random latent. The paper uses ``deterministic=True`` for the
    deterministic variant and ``deterministic=False`` for the stochastic variant.

    Training is imitation: it needs a dataset, but no rewards and no environment.

    Paper: https://arxiv.org/abs/2505.21851. Deviations from the published code: see ``docs/streaming_flow.md``.

    :param policy: ``"FlowPolicy"`` (or a subclass of ``StreamingFlowPolicy``)
    :param env: Environment, or its id. None: the spaces are those of the dataset, and the model cannot be evaluated before it
        gets an environment.
    :param learning_rate: Learning rate, or a function of the remaining progress (from 1 to 0)
    :param horizon_length: ``H``, number of actions per unit of flow time
    :param n_action_steps: Number of actions that are executed before the next plan starts; None: half of ``H``
    :param n_obs_steps: Number of observations in the history
    :param stochastic: Whether a latent variable chooses between demonstrations
    :param k: Stabilizing gain toward the demonstration, per unit of flow time; it must be below ``horizon_length``, otherwise
        an Euler step overshoots
    :param sigma_0: Standard deviation of the tube at ``t = 0``, in units of actions in [-1, 1]
    :param sigma_1: Standard deviation at ``t = 1`` in the stochastic variant; at least ``sigma_0 exp(-k)``
    :param start_from: Coordinates of the observation that hold the initial position, see ``StreamingFlowPolicy``. None: an
        episode starts from the mean of the first actions in the data.
    :param cosine: Whether the learning rate increases during ``warm_up`` and then decays to zero as a cosine. If False, it is
        constant.
    :param warm_up: Fraction of training in which the learning rate increases
    :param kwargs: Arguments of ``FlowAlgorithm``, such as ``dataset``, ``batch_size``, ``normalize_observations``, ``seed``
        and ``policy_kwargs``
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = aliases(StreamingFlowPolicy)
    policy: StreamingFlowPolicy

    def __init__(
        self,
        policy: str | type[StreamingFlowPolicy],
        env: GymEnv | str | None = None,
        learning_rate: float | Schedule = 1e-4,
        *,
        horizon_length: int = 16,
        n_action_steps: int | None = None,
        n_obs_steps: int = 2,
        stochastic: bool = False,
        k: float = 2.5,
        sigma_0: float = 0.2,
        sigma_1: float = 0.4,
        start_from: StartFrom | None = None,
        cosine: bool = True,
        warm_up: float = 0.02,
        **kwargs: Any,
    ) -> None:
        if not 0 <= k < horizon_length:
            raise ValueError(
                f"`k` is {k}; it must be at least 0 and below `horizon_length`, {horizon_length}; otherwise steps overshoot."
            )
        if not sigma_0 > 0:
            raise ValueError(f"`sigma_0` is {sigma_0}; it must be above 0.")
        if stochastic:
            latent_std(sigma_0, sigma_1, k)  # raises
        self.stochastic = stochastic
        self.k = k
        self.sigma_0 = sigma_0
        self.sigma_1 = sigma_1
        self.start_from = start_from
        super().__init__(
            policy,
            env,
            learning_rate,
            horizon_length=horizon_length,
            n_action_steps=n_action_steps,
            n_obs_steps=n_obs_steps,
            cosine=cosine,
            warm_up=warm_up,
            **kwargs,
        )
        if not stochastic:
            warn_without_effect(type(self), {"sigma_1": sigma_1}, "only the stochastic variant has it, `stochastic=True`")

    def _policy_arguments(self) -> dict[str, Any]:
        own = {"stochastic": self.stochastic, "sigma_0": self.sigma_0, "start_from": self.start_from}
        return {**super()._policy_arguments(), **own}

    # The dataset.

    def set_dataset(self, dataset: Any) -> None:
        super().set_dataset(dataset)
        assert self.offline_buffer is not None
        if self.start_from is not None and self._vec_normalize_env is not None and self._vec_normalize_env.norm_obs:
            raise ValueError(
                "`start_from` reads positions in the units of actions, but VecNormalize changes these units. Use "
                "`normalize_observations` instead."
            )
        if self._n_updates == 0:
            self.policy.start_action.copy_(self.offline_buffer.first_actions().mean(dim=0))

    def chunk(self, batch: Batch, window: Window) -> th.Tensor:
        """
        The knots of the curves.

        :param batch: ``B`` transitions
        :param window: The windows around them
        :return: ``(B, H + 1, action_dim)``: the previous action (at the start of an episode, the initial point of
            ``predict``), and the ``H`` next actions
        """
        before = th.where(window.has_previous, window.previous_actions, self.policy.start(batch.observations))
        return th.cat([before.unsqueeze(1), window.actions], dim=1)

    # The losses.

    def draw_noise(self, n: int) -> StreamingFlowNoise:
        """Draw all random numbers of an update with ``n`` chunks."""
        return StreamingFlowNoise(self.uniform(n), self.normal(n), self.normal(n, dim=self.policy.latent_dim))

    def loss(self, batch: Batch, noise: StreamingFlowNoise) -> tuple[th.Tensor, Metrics]:
        """``L`` of the variant."""
        return self.latent_tube_loss(batch, noise) if self.stochastic else self.tube_loss(batch, noise)

    def curve(self, batch: Batch, t: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """``xi(t)`` and ``xi'(t)`` of the chunks, ``(B, action_dim)`` each."""
        return segment(batch.actions.view(len(t), self.horizon_length + 1, -1), t)

    def tube_loss(self, batch: Batch, noise: StreamingFlowNoise) -> tuple[th.Tensor, Metrics]:
        """``L`` of the deterministic variant: flow matching in the tube around each chunk."""
        t, policy = noise.t, self.policy
        xi, slope = self.curve(batch, t)
        a = xi + tube_std(t, self.sigma_0, self.k) * noise.eta
        v = policy.field(policy.flow, policy.context(policy.flow, batch.observations))(a, t)
        loss = F.mse_loss(v, velocity(a, xi, slope, self.k))
        return loss, {"tube_loss": loss, "velocity_rms": v.square().mean().sqrt()}

    def latent_tube_loss(self, batch: Batch, noise: StreamingFlowNoise) -> tuple[th.Tensor, Metrics]:
        """``L`` of the stochastic variant, in the space of actions and latents."""
        (t, eta, z_0), policy = noise, self.policy
        sigmas = self.sigma_0, self.sigma_1, self.k
        xi, slope = self.curve(batch, t)
        a = xi + tube_std(t, self.sigma_0, self.k) * eta + latent_std(*sigmas) * t * z_0
        z = latent_share(t, self.sigma_1) * z_0 + t * xi
        v = policy.field(policy.flow, policy.context(policy.flow, batch.observations))(th.cat([a, z], dim=1), t)
        va, vz = v.chunk(2, dim=1)
        target_a, target_z = latent_velocity(a, z, xi, slope, t, *sigmas)
        action_loss, latent_loss = F.mse_loss(va, target_a), F.mse_loss(vz, target_z)
        loss = (action_loss + latent_loss) / 2
        metrics = {"tube_loss": loss, "action_loss": action_loss, "latent_loss": latent_loss}
        return loss, {**metrics, "velocity_rms": va.square().mean().sqrt()}
