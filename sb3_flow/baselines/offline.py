"""
SAC and TD3 of Stable-Baselines3, trained on a dataset only.

The algorithms are unchanged: their ``train`` samples from the dataset instead of a replay buffer. Neither is made for offline
data. Both are expected to fail when their critics extrapolate to actions outside of the dataset.
"""

from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3 import SAC, TD3
from stable_baselines3.common.buffers import BaseBuffer
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.type_aliases import GymEnv, ReplayBufferSamples
from stable_baselines3.common.vec_env import VecNormalize

from sb3_flow.common.data.batches import as_replay_samples, normalize
from sb3_flow.common.data.offline_buffer import OfflineBuffer
from sb3_flow.common.effects import warn_without_effect
from sb3_flow.common.offline_algorithm import OfflineAlgorithm

#: Arguments of Stable-Baselines3's algorithms without an effect on training from a dataset.
ONLINE_ONLY = {
    *("action_noise", "buffer_size", "gradient_steps", "learning_starts", "optimize_memory_usage", "replay_buffer_class"),
    *("replay_buffer_kwargs", "train_freq"),
}


class DatasetBuffer(BaseBuffer):
    """
    A dataset with the interface of a replay buffer.

    :param offline: The dataset
    :param observation_space: Observation space
    :param action_space: Action space
    :param n_steps: Number of steps of the returns
    :param gamma: Discount factor of the returns
    """

    def __init__(
        self,
        offline: OfflineBuffer,
        observation_space: spaces.Space[Any],
        action_space: spaces.Box,
        n_steps: int,
        gamma: float,
    ) -> None:
        self.offline = offline
        super().__init__(len(offline), observation_space, action_space, offline.device)
        self.full = True
        self.n_steps, self.gamma = n_steps, gamma

    def _get_samples(self, batch_inds: np.ndarray, env: VecNormalize | None = None) -> ReplayBufferSamples:
        return as_replay_samples(
            normalize(self.offline.draw(th.as_tensor(batch_inds), self.n_steps, self.gamma, env=env), env)
        )


class OfflineTraining(OfflineAlgorithm, OffPolicyAlgorithm):
    """
    Train an off-policy algorithm of Stable-Baselines3 on a dataset; one timestep is one update.

    :param policy: As for the algorithm
    :param env: Environment, or its id: it defines the spaces, and the rewards of OGBench's data
    :param args: As for the algorithm
    :param dataset: As for ``OfflineAlgorithm``
    :param policy_kwargs: As for the algorithm
    :param kwargs: As for the algorithm, and ``offline_log_interval`` as for ``OfflineAlgorithm``
    """

    takes_sb3_arguments = True

    def __init__(
        self,
        policy: Any,
        env: GymEnv | str | None = None,
        *args: Any,
        dataset: Any = None,
        policy_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if kwargs.get("_init_setup_model", True):
            online = {name: value for name, value in kwargs.items() if name in ONLINE_ONLY}
            warn_without_effect(type(self), online, "it is trained on a dataset only")
        # The dataset replaces the replay buffer. The base class writes into the dictionary, so copy it.
        kwargs = {**kwargs, "policy_kwargs": dict(policy_kwargs or {}), "buffer_size": 1}
        super().__init__(policy, env, *args, dataset=dataset, **kwargs)
        if dataset is not None:
            self.set_dataset(dataset)

    def set_dataset(self, dataset: Any) -> None:
        super().set_dataset(dataset)
        assert self.offline_buffer is not None
        self.replay_buffer = DatasetBuffer(  # type: ignore[assignment]
            self.offline_buffer, self.observation_space, self.action_space, self.n_steps, self.gamma
        )


class OfflineTD3(OfflineTraining, TD3):
    """TD3 (Fujimoto et al., 2018) of Stable-Baselines3, on a dataset."""


class OfflineSAC(OfflineTraining, SAC):
    """SAC (Haarnoja et al., 2018) of Stable-Baselines3, on a dataset."""
