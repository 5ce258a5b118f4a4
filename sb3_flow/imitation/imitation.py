"""The base class of imitation algorithms: chunks of actions given a history of observations."""

from typing import Any, ClassVar

import torch as th
from stable_baselines3.common.type_aliases import GymEnv, Schedule

from sb3_flow.common.data.checks import warn_about_short_trajectories
from sb3_flow.common.data.dataset import OfflineDataset
from sb3_flow.common.data.offline_buffer import OfflineBuffer, Window
from sb3_flow.common.effects import warn_without_effect
from sb3_flow.common.flow_algorithm import FlowAlgorithm, copy_buffers
from sb3_flow.common.schedules import WarmUpCosine
from sb3_flow.common.type_aliases import Batch
from sb3_flow.imitation.history_policy import HistoryPolicy

#: The moving average of the weights: its ``n``-th update has the weight ``n^-power``, and at least ``1 - cap``.
EMA_POWER, EMA_CAP = 0.75, 0.9999


class Imitation(FlowAlgorithm):
    """
    Base class of algorithms that learn from demonstrations, without rewards and without an environment. A subclass defines its
    policy, a ``HistoryPolicy``, and ``draw_noise`` and ``loss``.

    :param policy: ``"FlowPolicy"`` (or a subclass of the algorithm's policy)
    :param env: Environment, or its id. None: the spaces are those of the dataset, and the model cannot be evaluated before it
        gets an environment.
    :param learning_rate: Learning rate, or a function of the remaining progress (from 1 to 0)
    :param horizon_length: ``H``, number of predicted actions
    :param n_action_steps: Number of actions that are executed before the next plan starts; None: half of ``H``
    :param n_obs_steps: Number of observations in the history
    :param cosine: Whether the learning rate increases during ``warm_up`` and then decays to zero as a cosine. If False, it is
        constant.
    :param warm_up: Fraction of training in which the learning rate increases
    :param kwargs: Arguments of ``FlowAlgorithm``, such as ``dataset``, ``batch_size``, ``normalize_observations``, ``seed``
        and ``policy_kwargs``
    """

    policy: HistoryPolicy
    needs_rewards: ClassVar[bool] = False
    targets: ClassVar[dict[str, str]] = {"average": "flow"}

    def __init__(
        self,
        policy: str | type[HistoryPolicy],
        env: GymEnv | str | None = None,
        learning_rate: float | Schedule = 1e-4,
        *,
        horizon_length: int = 16,
        n_action_steps: int | None = None,
        n_obs_steps: int = 2,
        cosine: bool = True,
        warm_up: float = 0.02,
        **kwargs: Any,
    ) -> None:
        WarmUpCosine(float, warm_up)  # raises
        self.horizon_length = horizon_length
        self.n_action_steps = (horizon_length + 1) // 2 if n_action_steps is None else n_action_steps
        self.n_obs_steps = n_obs_steps
        self.cosine = cosine
        self.warm_up = warm_up
        super().__init__(policy, env, learning_rate, **kwargs)
        if not cosine:
            warn_without_effect(type(self), {"warm_up": warm_up}, "the learning rate is constant with `cosine=False`")

    def _setup_model(self) -> None:
        super()._setup_model()
        if self.cosine:
            self.lr_schedule = WarmUpCosine(self.lr_schedule, self.warm_up)

    def _policy_arguments(self) -> dict[str, Any]:
        return {
            "prediction_horizon": self.horizon_length,
            "n_action_steps": self.n_action_steps,
            "n_obs_steps": self.n_obs_steps,
        }

    def _make_offline_buffer(self, data: OfflineDataset) -> OfflineBuffer:
        warn_about_short_trajectories(data, self.horizon_length, "horizon_length")
        return super()._make_offline_buffer(data)

    def set_dataset(self, dataset: Any) -> None:
        super().set_dataset(dataset)
        assert self.offline_buffer is not None
        if self.n_obs_steps > 1 and self.offline_buffer.observations.stacks:
            raise ValueError(
                f"The environment stacks frames, and `n_obs_steps={self.n_obs_steps}` would stack them again. Set "
                "`n_obs_steps=1`, or do not stack frames in the environment."
            )

    def draw_from(self, buffer: OfflineBuffer, indices: th.Tensor) -> Batch:
        """
        Read chunks of actions and the histories before them.

        :param buffer: The data
        :param indices: First transitions of the chunks, ``(B,)``
        :return: A batch whose ``observations`` are histories, ``(B * n_obs_steps, *shape)``, oldest first, and whose
            ``actions`` are chunks as returned by ``chunk``, ``(B, n * action_dim)``
        """
        batch = buffer.draw(indices, env=self._vec_normalize_env)
        window = buffer.window(indices, self.n_obs_steps, self.horizon_length)
        return batch._replace(observations=window.observations, actions=self.chunk(batch, window).flatten(start_dim=1))

    def chunk(self, batch: Batch, window: Window) -> th.Tensor:
        """
        The actions to imitate.

        :param batch: ``B`` transitions
        :param window: The windows around them
        :return: The ``H`` next actions in [-1, 1], ``(B, n, action_dim)``
        """
        return window.actions

    def update_targets(self, *names: str) -> None:
        """Update the moving average: ``average <- average + n^-0.75 (flow - average)`` at the ``n``-th update."""
        policy = self.policy
        with th.no_grad():
            policy.n_averaged.add_(1)
            share = policy.n_averaged.pow(-EMA_POWER).clamp(min=1.0 - EMA_CAP)
            averages: list[th.Tensor] = list(policy.average.parameters())
            moves = th._foreach_sub(list[th.Tensor](policy.flow.parameters()), averages)
            th._foreach_add_(averages, th._foreach_mul(moves, share))
            copy_buffers(policy.average, policy.flow)
