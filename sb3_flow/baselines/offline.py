"""
SAC and TD3 of Stable-Baselines3, trained on a data set alone.

Nothing of the algorithms is changed: their ``train`` draws from the data where it drew from a replay buffer. Neither is
made for offline data, and both are expected to fail where their critics are asked about actions that the data does not have.
"""

import pathlib
from typing import Any, TypeVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3 import SAC, TD3
from stable_baselines3.common.buffers import BaseBuffer
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, ReplayBufferSamples
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from sb3_flow.common.batches import as_replay_samples, normalize
from sb3_flow.common.buffers import OfflineBuffer
from sb3_flow.common.dataset import OfflineDataset, read_dataset
from sb3_flow.common.environments import register_environment, report_success
from sb3_flow.common.statistics import prepare_vec_normalize

SelfOffline = TypeVar("SelfOffline", bound="OfflineTraining")


class DatasetBuffer(BaseBuffer):
    """
    A data set in the place of a replay buffer.

    :param data: The data set
    :param observation_space: Observation space
    :param action_space: Action space
    :param device: Where batches go
    :param n_steps: Number of steps of the returns
    :param gamma: Discount factor within them
    """

    def __init__(
        self,
        data: OfflineDataset,
        observation_space: spaces.Space[Any],
        action_space: spaces.Box,
        device: th.device,
        n_steps: int,
        gamma: float,
    ) -> None:
        self.offline = OfflineBuffer(data, observation_space, action_space, device)
        super().__init__(len(self.offline), observation_space, action_space, device)
        self.full = True
        self.n_steps, self.gamma = n_steps, gamma

    def _get_samples(self, batch_inds: np.ndarray, env: VecNormalize | None = None) -> ReplayBufferSamples:
        return as_replay_samples(normalize(self.offline.draw(th.as_tensor(batch_inds), self.n_steps, self.gamma), env))


class OfflineTraining(OffPolicyAlgorithm):
    """
    Trains an off-policy algorithm on a data set; one timestep is one update.

    :param policy: As of the algorithm
    :param env: Environment, or its id: it gives the spaces, and rewards to OGBench's data
    :param dataset: As of ``OfflineToOnlineAlgorithm``
    :param kwargs: As of the algorithm
    """

    def __init__(self, policy: Any, env: GymEnv | str, *args: Any, dataset: Any = None, **kwargs: Any) -> None:
        if isinstance(env, str):
            register_environment(env)
        # Nothing is collected; the data comes with `learn`. The dictionary is a copy because the base class writes into it.
        policy_kwargs = dict(kwargs.get("policy_kwargs") or {})
        super().__init__(policy, env, *args, **{**kwargs, "policy_kwargs": policy_kwargs, "buffer_size": 1})
        self.dataset = dataset

    @staticmethod
    def _wrap_env(env: GymEnv, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        if not isinstance(env, VecEnv):
            env = report_success(env)
        return OffPolicyAlgorithm._wrap_env(env, verbose, monitor_wrapper)

    def learn(
        self: SelfOffline,
        total_timesteps: int = 1_000_000,
        callback: MaybeCallback = None,
        log_interval: int = 1_000,
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfOffline:
        """
        Train on the data set.

        :param total_timesteps: Number of updates
        :param callback: Called after each ``n_envs`` updates
        :param log_interval: Updates between two lines of the log
        :param tb_log_name: Name of the run in TensorBoard
        :param reset_num_timesteps: Whether the clock starts from zero
        :param progress_bar: Whether to show a progress bar
        :return: The model
        :raises ValueError: If there is no data set, or it has no rewards.
        """
        if self.dataset is None:
            raise ValueError(f"{type(self).__name__} trains on data: pass `dataset`.")
        assert self.env is not None and isinstance(self.action_space, spaces.Box)
        spec = self.env.get_attr("spec", 0)[0]
        data = read_dataset(self.dataset, None if spec is None else spec.id)
        if data.rewards is None:
            raise ValueError(f"{data.name}: it has no rewards, which {type(self).__name__} needs.")
        if self._vec_normalize_env is not None:
            prepare_vec_normalize(self._vec_normalize_env, data)
        total_timesteps, callback = self._setup_learn(
            total_timesteps, callback, reset_num_timesteps, tb_log_name or type(self).__name__, progress_bar
        )
        self.replay_buffer = DatasetBuffer(  # type: ignore[assignment]
            data, self.observation_space, self.action_space, self.device, self.n_steps, self.gamma
        )
        n_envs, dones = self.env.num_envs, np.zeros(self.env.num_envs, dtype=bool)
        infos: list[dict[str, Any]] = [{} for _ in range(n_envs)]
        callback.on_training_start(locals(), globals())
        while self.num_timesteps < total_timesteps:
            self.train(n_envs, self.batch_size)
            self.num_timesteps += n_envs
            self._update_current_progress_remaining(self.num_timesteps, total_timesteps)
            if self._n_updates % log_interval < n_envs:
                self.logger.record("time/total_timesteps", self.num_timesteps, exclude="tensorboard")
                self.logger.dump(self.num_timesteps)
            callback.update_locals({"dones": dones, "infos": infos, "self": self})
            if not callback.on_step():
                break
        callback.on_training_end()
        return self

    def _excluded_save_params(self) -> list[str]:
        excluded = super()._excluded_save_params()
        return excluded if isinstance(self.dataset, str | pathlib.PurePath) else [*excluded, "dataset"]


class OfflineTD3(OfflineTraining, TD3):
    """TD3 (Fujimoto et al., 2018) of Stable-Baselines3, on a data set."""


class OfflineSAC(OfflineTraining, SAC):
    """SAC (Haarnoja et al., 2018) of Stable-Baselines3, on a data set."""
