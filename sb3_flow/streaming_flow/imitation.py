"""Imitation of chunks of actions given a history of observations: what a streaming flow policy shares with chunk policies."""

from typing import Any, ClassVar

import torch as th
from stable_baselines3.common.type_aliases import GymEnv, Schedule

from sb3_flow.common.algorithm import OfflineToOnlineAlgorithm
from sb3_flow.common.buffers import OfflineBuffer, Window
from sb3_flow.common.no_environment import NoEnvironment
from sb3_flow.common.schedules import WarmUpCosine
from sb3_flow.common.types import Batch
from sb3_flow.streaming_flow.history import HistoryPolicy

#: The moving average of the weights: its ``n``-th update has the weight ``n^-power``, and at least ``1 - cap``.
EMA_POWER, EMA_CAP = 0.75, 0.9999


class Imitation(OfflineToOnlineAlgorithm):
    """
    Base class of algorithms that learn from demonstrations, without rewards and without an environment. A subclass gives its
    policy, a ``HistoryPolicy``, and ``draw_noise`` and ``terms``.

    :param policy: ``"FlowPolicy"`` (or a subclass of the algorithm's policy)
    :param env: Environment, or its id. None: the spaces are those of the data, and the model cannot be evaluated until it gets
        an environment.
    :param learning_rate: Learning rate, or a function of the remaining progress (from 1 to 0)
    :param horizon_length: ``H``, number of actions that are predicted
    :param n_action_steps: How many of them are executed before the next plan begins; None: half of them
    :param n_obs_steps: How many observations the history has
    :param cosine: Whether the learning rate rises over ``warm_up`` and falls to zero as a cosine. If not, it stays.
    :param warm_up: Share of training in which it rises
    :param kwargs: All other arguments are those of ``OfflineToOnlineAlgorithm``, such as ``dataset``, ``batch_size``,
        ``normalize_observations``, ``seed`` and ``policy_kwargs``. Those of critics and of the online phase are of no use.
    """

    policy: HistoryPolicy
    needs_rewards: ClassVar[bool] = False

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
        dataset: Any = None,
        _init_setup_model: bool = True,
        **kwargs: Any,
    ) -> None:
        WarmUpCosine(float, warm_up)  # raises
        self.n_action_steps = (horizon_length + 1) // 2 if n_action_steps is None else n_action_steps
        self.n_obs_steps = n_obs_steps
        self.cosine = cosine
        self.warm_up = warm_up
        if env is None and _init_setup_model:
            if dataset is None:
                raise ValueError("There is neither an environment nor data: pass `env`, `dataset`, or both.")
            env = NoEnvironment.of(dataset)
        super().__init__(
            policy,
            env,  # type: ignore[arg-type]  # `load` makes the model without one
            learning_rate,
            horizon_length=horizon_length,
            dataset=dataset,
            _init_setup_model=_init_setup_model,
            **kwargs,
        )
        self._refuse_the_online_phase()

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

    # The data set.

    def set_dataset(self, dataset: Any) -> None:
        super().set_dataset(dataset)
        assert self.offline_buffer is not None
        if self.n_obs_steps > 1 and self.offline_buffer.observations.stacks:
            raise ValueError(
                f"The environment stacks frames, and `n_obs_steps={self.n_obs_steps}` would do so once more. Set "
                "`n_obs_steps=1`, or take the stacking away."
            )

    def _refuse_the_online_phase(self) -> None:
        if self.offline_steps is not None:
            raise ValueError(
                f"`offline_steps` is {self.offline_steps}, but {type(self).__name__} only imitates: it trains on the data for "
                "all of `learn`. Leave `offline_steps` out; to improve on the data by reward, take another algorithm."
            )

    def _require_dataset(self) -> None:
        self._refuse_the_online_phase()
        if self.dataset is None and self.dataset_name is None:
            raise ValueError(
                f"{type(self).__name__} imitates, and there is nothing to imitate: pass `dataset`, or call "
                "`model.set_dataset(...)`, before `learn`."
            )
        if self.env is None:  # after `load`
            self.set_env(NoEnvironment(self.observation_space, self.action_space))
        super()._require_dataset()

    def draw_from(self, buffer: OfflineBuffer, indices: th.Tensor) -> Batch:
        """
        Chunks with the histories before them.

        :param buffer: The data
        :param indices: Which transitions the chunks begin with, ``(B,)``
        :return: A batch whose ``observations`` are histories, ``(B * n_obs_steps, *shape)``, the oldest first, and whose
            ``actions`` are what ``chunk`` makes of each window, ``(B, n * action_dim)``, one after the other
        """
        batch = buffer.draw(indices)
        window = buffer.window(indices, self.n_obs_steps, self.horizon_length)
        return batch._replace(observations=window.observations, actions=self.chunk(batch, window).flatten(start_dim=1))

    def chunk(self, batch: Batch, window: Window) -> th.Tensor:
        """
        What is imitated of a window.

        :param batch: The transitions, ``B``
        :param window: What lies around them
        :return: Actions in [-1, 1], ``(B, n, action_dim)``: the ``H`` that follow
        """
        return window.actions

    def update_targets(self, *names: str) -> None:
        """Average the weights: ``average <- average + n^-0.75 (flow - average)`` at the ``n``-th update."""
        policy = self.policy
        with th.no_grad():
            policy.n_averaged.add_(1)
            share = policy.n_averaged.pow(-EMA_POWER).clamp(min=1.0 - EMA_CAP)
            averages: list[th.Tensor] = list(policy.average.parameters())
            moves = th._foreach_sub(list[th.Tensor](policy.flow.parameters()), averages)
            th._foreach_add_(averages, th._foreach_mul(moves, share))
