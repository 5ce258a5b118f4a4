"""
The base of all algorithms that train on a dataset, on an environment, or on one after the other.

``num_timesteps`` runs through both phases: a timestep is one gradient step of the offline phase or one step of the
environment. What was really done is counted apart, in ``n_offline_updates`` and ``n_env_steps``.
"""

import io
import math
import pathlib
import time
import warnings
from typing import Any, ClassVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule, TrainFreq, TrainFrequencyUnit
from stable_baselines3.common.vec_env import VecEnv

from sb3_flow.common import checkpoints
from sb3_flow.common.checkpoints.replay_buffer import load_replay_buffer, save_replay_buffer
from sb3_flow.common.data.batches import concatenate, offline_count
from sb3_flow.common.data.checks import check_chunks, warn_about_short_trajectories
from sb3_flow.common.data.columns import DatasetError
from sb3_flow.common.data.dataset import OfflineDataset
from sb3_flow.common.data.offline_buffer import OfflineBuffer
from sb3_flow.common.data.online_buffer import OnlineBuffer
from sb3_flow.common.flow_algorithm import FlowAlgorithm
from sb3_flow.common.guards import check_action_noise, check_step, warn_about_memory
from sb3_flow.common.policies import FlowPolicy
from sb3_flow.common.type_aliases import Batch
from sb3_flow.common.vec_envs import images_memory


class OfflineToOnlineAlgorithm(FlowAlgorithm, OffPolicyAlgorithm):
    """
    Base class of the flow algorithms that learn from a dataset, from an environment, or from one after the other. A subclass
    gives ``draw_noise`` and ``loss``, and its policy.

    :param policy: ``"FlowPolicy"`` (or a policy class); its features extractor depends on the observation space.
    :param env: Environment, or its id. None: the spaces are those of the dataset, and the model cannot be evaluated, or train
        online, before it gets an environment.
    :param learning_rate: Learning rate of the optimizer, or a function of the remaining progress (from 1 to 0)
    :param buffer_size: Capacity of the replay buffer for what is collected online; the dataset is kept apart.
    :param learning_starts: Environment steps before the first online update. Actions are random until then, unless the
        model has been trained offline.
    :param batch_size: Transitions per update
    :param tau: Share of the critic that enters its target at each update, in [0, 1]
    :param gamma: Discount factor, in [0, 1]
    :param train_freq: Online, update every that many steps; or a tuple of number and unit such as ``(5, "step")``
    :param gradient_steps: Online, how many updates then; -1 means as many as steps were made.
    :param action_noise: Noise added to the actions that explore
    :param n_steps: Number of steps of the returns
    :param horizon_length: Number of actions in a chunk. Above 1, the policy plans that many actions at once and executes
        them before it plans again, and the critics value chunks, with returns over as many steps (Q-chunking; Li, Zhou and
        Levine, 2025).
    :param sparse_rewards: Whether every reward below 0 counts as -1, in the data and online: a task whose reward is minus
        the number of things left to do then has one that only tells whether all is done. Rewards above 0 are refused.
    :param dataset: Offline data, see ``FlowAlgorithm``
    :param offline_steps: How many timesteps train on the dataset before the environment is used. None: all of them,
        where there is a dataset.
    :param balanced_sampling: Online, whether half of each batch comes from the dataset and half from the replay buffer;
        if not, all transitions are equally likely.
    :param kwargs: All other arguments are those of ``FlowAlgorithm``, such as ``max_grad_norm``, ``normalize_observations``,
        ``policy_kwargs``, ``verbose``, ``seed``, ``compile`` and ``device``.
    """

    policy: FlowPolicy
    policy_class: type[FlowPolicy]
    action_space: spaces.Box
    replay_buffer: OnlineBuffer
    targets: ClassVar[dict[str, str]] = {"critic_target": "critic"}

    def __init__(
        self,
        policy: str | type[FlowPolicy],
        env: GymEnv | str | None = None,
        learning_rate: float | Schedule = 3e-4,
        buffer_size: int = 1_000_000,
        learning_starts: int = 100,
        batch_size: int = 256,
        tau: float = 0.005,
        gamma: float = 0.99,
        train_freq: int | tuple[int, str] = 1,
        gradient_steps: int = 1,
        action_noise: ActionNoise | None = None,
        n_steps: int = 1,
        horizon_length: int = 1,
        sparse_rewards: bool = False,
        dataset: Any = None,
        offline_steps: int | None = None,
        balanced_sampling: bool = False,
        _init_setup_model: bool = True,
        **kwargs: Any,
    ) -> None:
        for name, value, low, high in (
            ("n_steps", n_steps, 1, math.inf),
            ("gradient_steps", gradient_steps, -1, math.inf),
            ("offline_steps", offline_steps or 0, 0, math.inf),
            ("tau", tau, 0, 1),
            ("gamma", gamma, 0, 1),
        ):
            if not low <= value <= high:
                expected = f"at least {low}" if high == math.inf else f"in [{low}, {high}]"
                raise ValueError(f"`{name}` is {value}; it must be {expected}.")
        if n_steps > 1 and horizon_length > 1:
            raise ValueError(f"Chunks of {horizon_length} actions have returns over as many steps: leave `n_steps` at 1.")
        if offline_steps and dataset is None and _init_setup_model:
            raise ValueError(f"`offline_steps={offline_steps}` needs data to train on: pass `dataset` as well.")
        self.horizon_length = horizon_length
        self.sparse_rewards = sparse_rewards
        self.offline_steps = offline_steps
        self.balanced_sampling = balanced_sampling
        #: What ``predict`` carries from one step of the environment to the next.
        self._policy_state: tuple[np.ndarray, ...] | None = None
        super().__init__(
            policy,
            env,
            learning_rate,
            batch_size=batch_size,
            dataset=dataset,
            buffer_size=buffer_size,
            learning_starts=learning_starts,
            tau=tau,
            gamma=gamma,
            train_freq=train_freq,
            gradient_steps=gradient_steps,
            action_noise=action_noise,
            n_steps=n_steps,
            sde_support=False,
            _init_setup_model=_init_setup_model,
            **kwargs,
        )

    def _setup_model(self) -> None:
        super()._setup_model()
        if self.replay_buffer is None:
            self.replay_buffer = OnlineBuffer(
                self.buffer_size, self.observation_space, self.action_space, self.device, self.n_envs, self.sparse_rewards
            )
        self._convert_train_freq()
        if self.sparse_rewards and self._vec_normalize_env is not None and self._vec_normalize_env.norm_reward:
            raise ValueError(
                "`sparse_rewards` makes rewards -1 and 0, and `VecNormalize` would divide them by the spread of others: pass "
                "`norm_reward=False` to it."
            )
        if self.env is not None:
            self._check_online_phase(self.env)

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        super().set_env(env, force_reset)
        assert self.env is not None
        self._check_online_phase(self.env)

    def _check_online_phase(self, env: VecEnv) -> None:
        """Find now what would otherwise fail after the offline phase."""
        if self.train_freq.unit is TrainFrequencyUnit.EPISODE and env.num_envs > 1:  # type: ignore[union-attr]
            raise ValueError(
                f"`train_freq` counts episodes, which needs a single environment, and there are {env.num_envs}: count steps, "
                f"such as train_freq=(1, 'step')."
            )
        check_action_noise(self.action_noise, self.action_space, env.num_envs)
        if self.dataset is None or self.offline_steps is not None:  # there is an online phase
            warn_about_memory(images_memory(env, self.buffer_size))

    def _policy_arguments(self) -> dict[str, Any]:
        return {"horizon_length": self.horizon_length}

    # The dataset.

    def _make_offline_buffer(self, data: OfflineDataset) -> OfflineBuffer:
        check_chunks(data, self.horizon_length)
        warn_about_short_trajectories(data, self.n_steps, "n_steps")
        return OfflineBuffer(data, self.observation_space, self.action_space, self.device, self.sparse_rewards)

    def _require_dataset(self) -> None:
        if self.offline_buffer is not None or self.dataset is not None:
            try:
                super()._require_dataset()
            except DatasetError as error:
                again = "Pass it again, by `model.set_dataset(...)` or `load(..., dataset=...)`."
                if self._in_offline_phase():
                    raise DatasetError(f"The model's dataset {self.dataset!r} cannot be read: {error} {again}") from error
                warnings.warn(
                    f"Going on without {self.dataset_name!r}: batches come from the replay buffer only. ({error} {again})",
                    stacklevel=3,
                )
        elif self.dataset_name is not None and self._in_offline_phase():
            raise ValueError(
                f"This model trains on {self.dataset_name!r}, which is not part of the saved file. Pass it again, by "
                "`model.set_dataset(...)` or `load(..., dataset=...)`, or set `offline_steps=0` to go on online."
            )
        elif self.dataset_name is not None:
            warnings.warn(f"Going on without {self.dataset_name!r}: batches come from the replay buffer only.", stacklevel=3)

    def _in_offline_phase(self) -> bool:
        if self.dataset_name is None:
            return False
        return self.offline_steps is None or self.n_offline_updates < self.offline_steps

    def draw_batch(self, batch_size: int) -> Batch:
        """
        Draw a batch from the dataset, the replay buffer, or both.

        :param batch_size: Number of transitions
        :return: The batch, neither normalized nor augmented
        """
        n_offline = 0 if self.offline_buffer is None else len(self.offline_buffer)
        count = offline_count(batch_size, n_offline, len(self.replay_buffer), self.balanced_sampling, self.host_generator)
        parts = []
        for buffer, n in ((self.offline_buffer, count), (self.replay_buffer, batch_size - count)):
            if buffer is not None and n > 0:
                parts.append(self.draw_from(buffer, buffer.draw_indices(n, self.host_generator)))
        if not parts:
            raise ValueError("There is nothing to train on: no dataset, and no transition collected yet.")
        return parts[0] if len(parts) == 1 else concatenate(*parts)

    def draw_from(self, buffer: Any, indices: th.Tensor) -> Batch:
        env = self._vec_normalize_env
        return buffer.draw(indices, self.n_steps, self.gamma, self.horizon_length, env)  # type: ignore[no-any-return]

    # The two phases.

    def _setup_learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        reset_num_timesteps: bool = True,
        tb_log_name: str = "run",
        progress_bar: bool = False,
    ) -> tuple[int, BaseCallback]:
        will_reset = reset_num_timesteps or self._last_obs is None
        result = super()._setup_learn(total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar)
        if will_reset:
            self._begin_trajectories()
        return result

    def _begin_trajectories(self) -> None:
        """The environments were reset: what was collected before does not go on, nor do chunks."""
        self.replay_buffer.cut()
        self._policy_state = None
        self.run.episodes_are_stale = False

    def _run_phases(self, total_timesteps: int, callback: BaseCallback, log_interval: int) -> None:
        if self._learn_offline(total_timesteps, callback):
            self._learn_online(total_timesteps, callback, log_interval)
        self.check_finite()

    def _learn_online(self, total_timesteps: int, callback: BaseCallback, log_interval: int) -> None:
        """As ``OffPolicyAlgorithm.learn``, except that ``learning_starts`` counts steps of the environment."""
        assert self.env is not None and isinstance(self.train_freq, TrainFreq)
        # So that `time/fps` counts steps of the environment only.
        self.start_time, self._num_timesteps_at_start = time.time_ns(), self.num_timesteps
        while self.num_timesteps < total_timesteps:
            if self.run.episodes_are_stale:
                self._restart_episodes()
            rollout = self.collect_rollouts(
                self.env,
                train_freq=self.train_freq,
                action_noise=self.action_noise,
                callback=callback,
                learning_starts=self.learning_starts,
                replay_buffer=self.replay_buffer,
                log_interval=log_interval,
            )
            if not rollout.continue_training:
                return
            if self.n_env_steps > self.learning_starts:
                gradient_steps = self.gradient_steps if self.gradient_steps >= 0 else rollout.episode_timesteps
                if gradient_steps > 0:
                    self.train(gradient_steps, self.batch_size)
            checkpoints.write_due(self, callback)

    def _restart_episodes(self) -> None:
        """After a checkpoint: reset the environments, with seeds that follow from the state of training."""
        assert self.env is not None
        self.env.seed(self.restart_seed())
        self._last_obs = self.env.reset()  # type: ignore[assignment]
        self._last_episode_starts = np.ones(self.env.num_envs, dtype=bool)
        if self._vec_normalize_env is not None:
            self._last_original_obs = self._vec_normalize_env.get_original_obs()
        if self.action_noise is not None:
            self.action_noise.reset()
        self._begin_trajectories()

    def _sample_action(
        self, learning_starts: int, action_noise: ActionNoise | None = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        # As the base class does, except that learning_starts counts environment steps, that a policy which has been trained
        # offline explores better than random actions do, and that chunks are executed to their end.
        if self._n_updates == 0 and self.n_env_steps < learning_starts:
            actions = np.array([self.action_space.sample() for _ in range(n_envs)])
        else:
            assert self._last_obs is not None
            self.check_finite()
            # From the stream of training, so that evaluating more often does not change what is learned.
            policy = self.policy.exploring(self.generator)
            actions, self._policy_state = policy.predict(self._last_obs, self._policy_state, self._last_episode_starts)
        # Here and not in _on_step, which runs after the callbacks: what they save and log is to agree with the clock.
        self.n_env_steps += n_envs
        buffer_actions = self.policy.scale_action(actions)
        if action_noise is not None:
            buffer_actions = buffer_actions + action_noise()
        clipped = np.clip(buffer_actions, -1.0, 1.0)
        return self.policy.unscale_action(clipped), self.stored_action(buffer_actions)

    def stored_action(self, actions: np.ndarray) -> np.ndarray:
        """
        What the replay buffer stores of the actions that explore: what the environment executes.

        :param actions: As they were made, noise included, ``(n_envs, *shape)``; the action space is [-1, 1]
        :return: As they are stored
        """
        clipped: np.ndarray = np.clip(actions, -1.0, 1.0)
        return clipped

    def _store_transition(
        self, replay_buffer: Any, buffer_action: Any, new_obs: Any, reward: Any, dones: np.ndarray, infos: Any
    ) -> None:
        check_step(new_obs, reward, infos, self.observation_space, self.n_env_steps)
        super()._store_transition(replay_buffer, buffer_action, new_obs, reward, dones, infos)
        self._last_episode_starts = dones

    def dump_logs(self) -> None:
        """Write the log of the phase that training is in."""
        if self._in_offline_phase():
            return super().dump_logs()
        self._record_training()
        OffPolicyAlgorithm.dump_logs(self)

    # Saving.

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_policy_state"]

    def save_replay_buffer(self, path: str | pathlib.Path | io.BufferedIOBase) -> None:
        """
        Save what was collected online; the dataset is no part of it.

        :param path: A path (``.pkl`` is added where it has no suffix), or an open file
        """
        save_replay_buffer(self.replay_buffer, path)

    def load_replay_buffer(self, path: Any, truncate_last_traj: bool = True) -> None:
        """
        Load what ``save_replay_buffer`` saved.

        :param path: A path, or an open file
        :param truncate_last_traj: Whether the newest trajectories end here. If not, what is collected next continues them.
        :raises FileNotFoundError: If there is no such file.
        :raises ValueError: If it holds something else, or what was collected with other spaces.
        """
        self.replay_buffer = load_replay_buffer(path, self.replay_buffer, type(self).__name__)
        if truncate_last_traj:
            self.replay_buffer.cut()

    def save_run(self, folder: pathlib.Path) -> None:
        super().save_run(folder)
        if len(self.replay_buffer) > 0:
            self.save_replay_buffer(folder / checkpoints.BUFFER)

    def load_run(self, folder: pathlib.Path) -> None:
        super().load_run(folder)
        if (folder / checkpoints.BUFFER).exists():
            self.load_replay_buffer(folder / checkpoints.BUFFER)
