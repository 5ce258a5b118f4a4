"""
Base class of algorithms that train on a dataset, in an environment, or on a dataset first and then in an environment.

``num_timesteps`` counts the timesteps of both phases: a timestep is a gradient step of the offline phase or a step of the
environment. ``n_offline_updates`` and ``n_env_steps`` count them separately.
"""

import io
import math
import pathlib
import time
import warnings
from collections.abc import Callable
from functools import partial
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
from sb3_flow.common.data.columns import DatasetError, short
from sb3_flow.common.data.dataset import OfflineDataset
from sb3_flow.common.data.hindsight import Hindsight, check_goals
from sb3_flow.common.data.offline_buffer import OfflineBuffer
from sb3_flow.common.data.online_buffer import OnlineBuffer
from sb3_flow.common.effects import warn_without_effect
from sb3_flow.common.flow_algorithm import FlowAlgorithm
from sb3_flow.common.guards import (
    before_normalization,
    check_action_noise,
    check_explored,
    check_observation,
    check_step,
    named_returns,
    not_finite,
    statistics_of,
    warn_about_memory,
)
from sb3_flow.common.policies import FlowPolicy, check_n_action_steps
from sb3_flow.common.time_limits import FirstEpisodes
from sb3_flow.common.type_aliases import Batch
from sb3_flow.common.vec_envs import images_memory
from sb3_flow.common.warn import warn


class CheckedSteps:
    """
    A callback, except that each step is checked first. A step that is not finite would be evaluated or logged otherwise.

    :param callback: The callback
    :param check: Called with observations, rewards and infos
    :param first_episodes: Sees how episodes end
    """

    def __init__(self, callback: BaseCallback, check: Callable[..., None], first_episodes: FirstEpisodes) -> None:
        self.callback, self.check, self.first_episodes = callback, check, first_episodes

    def on_step(self) -> bool:
        """Called by SB3 after each step of the environments."""
        step = self.callback.locals
        self.check(step["new_obs"], step["rewards"], step["infos"])
        self.first_episodes.see(step["dones"], step["infos"])
        return self.callback.on_step()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.callback, name)


class OfflineToOnlineAlgorithm(FlowAlgorithm, OffPolicyAlgorithm):
    """
    Base class of flow algorithms that train on a dataset, in an environment, or on a dataset first and then in an environment.
    A subclass defines ``draw_noise``, ``loss`` and its policy.

    :param policy: ``"FlowPolicy"`` (or a policy class); its features extractor depends on the observation space.
    :param env: Environment, or its id. None: the spaces are taken from the dataset; call ``set_env`` before evaluation or
        online training.
    :param learning_rate: Learning rate of the optimizer, or a function of the remaining progress (from 1 to 0)
    :param buffer_size: Capacity of the replay buffer of the online phase. The dataset is not part of it.
    :param learning_starts: Environment steps before the first online update. Actions are random until then, unless the model
        was trained offline.
    :param batch_size: Transitions per update
    :param tau: Rate of the target networks, in [0, 1]
    :param gamma: Discount factor, in [0, 1]
    :param train_freq: Online, number of steps between updates; or a tuple of number and unit such as ``(5, "step")``
    :param gradient_steps: Online, number of updates at a time; -1: as many as environment steps
    :param action_noise: Noise added to the actions of rollouts
    :param n_steps: Number of steps of n-step returns
    :param horizon_length: Number of actions in a chunk. Above 1, the policy plans chunks and executes each to its end; critics
        take chunks, with returns over as many steps (Q-chunking; Li, Zhou and Levine, 2025).
    :param n_action_steps: Number of actions of a chunk that are executed before the next chunk is planned, from 1 to
        ``horizon_length``. Critics and losses use whole chunks. None: ``horizon_length``
    :param sparse_rewards: Whether to replace rewards below 0 by -1, in the dataset and online. If the reward is minus the
        number of unfinished subtasks, this leaves -1 until all are finished, then 0. Rewards above 0 are refused.
    :param hindsight: Number of relabeled transitions for each one with its own goal, in the dataset and online: their goal was
        reached later in the same trajectory (HER; ``n_sampled_goal`` of SB3's ``HerReplayBuffer`` with the strategy
        ``future``). 0: none. The environment must have goals and ``compute_reward``.
    :param dataset: Dataset, see ``FlowAlgorithm``
    :param offline_steps: Number of timesteps of the offline phase. None: all timesteps, if there is a dataset
    :param balanced_sampling: Online, whether half of each batch is from the dataset and half from the replay buffer. If False,
        all transitions are equally likely.
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
        n_action_steps: int | None = None,
        sparse_rewards: bool = False,
        hindsight: int = 0,
        dataset: Any = None,
        offline_steps: int | None = None,
        balanced_sampling: bool = False,
        _init_setup_model: bool = True,
        **kwargs: Any,
    ) -> None:
        if n_steps > 1 and horizon_length > 1:
            raise ValueError(f"Chunks of {horizon_length} actions have returns over as many steps: use `n_steps=1`.")
        check_n_action_steps(n_action_steps, horizon_length)
        if offline_steps and dataset is None and _init_setup_model:
            raise ValueError(f"`offline_steps={offline_steps}` needs a dataset: pass `dataset` as well.")
        self.horizon_length = horizon_length
        self.n_action_steps = n_action_steps
        self.sparse_rewards = sparse_rewards
        self.hindsight = hindsight
        self.offline_steps = offline_steps
        self.balanced_sampling = balanced_sampling
        #: State of ``predict`` in rollouts.
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
        if _init_setup_model and dataset is None:
            of_data = {"balanced_sampling": balanced_sampling, "dataset_on_device": self.dataset_on_device}
            warn_without_effect(type(self), of_data, "there is no dataset; pass `dataset`, or call `set_dataset`")
        elif _init_setup_model and offline_steps is None:
            frequency = 1 if train_freq == (1, "step") else train_freq
            online = {"action_noise": action_noise, "gradient_steps": gradient_steps, "train_freq": frequency}
            reason = "all timesteps are offline updates. For an online phase after them, set `offline_steps`"
            warn_without_effect(type(self), {**online, "balanced_sampling": balanced_sampling}, reason)

    def _setup_model(self) -> None:
        super()._setup_model()
        if self.replay_buffer is None:
            self._make_replay_buffer()
        self._convert_train_freq()
        if self.sparse_rewards and self._vec_normalize_env is not None and self._vec_normalize_env.norm_reward:
            raise ValueError(
                "`sparse_rewards` makes rewards -1 and 0, and `VecNormalize` would divide them by the spread of others: pass "
                "`norm_reward=False` to it."
            )
        if self.hindsight:
            check_goals(self.observation_space)
        if self.env is not None:
            self._check_online_phase(self.env)

    def _make_replay_buffer(self) -> None:
        self.replay_buffer = OnlineBuffer(
            self.buffer_size, self.observation_space, self.action_space, self.device, self.n_envs, self.sparse_rewards
        )

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        super().set_env(env, force_reset)
        assert self.env is not None
        if self.replay_buffer.n_envs != self.n_envs:  # of a model that was made from data alone: it is empty
            self._make_replay_buffer()
        self._check_online_phase(self.env)

    def _check_online_phase(self, env: VecEnv) -> None:
        """Check for errors that would otherwise be raised after the offline phase."""
        if self.train_freq.unit is TrainFrequencyUnit.EPISODE and env.num_envs > 1:  # type: ignore[union-attr]
            raise ValueError(
                f"`train_freq` in episodes needs a single environment; there are {env.num_envs}. Use steps, such as "
                f"train_freq=(1, 'step')."
            )
        check_action_noise(self.action_noise, self.action_space, env.num_envs)
        if self.dataset is None or self.offline_steps is not None:  # there is an online phase
            warn_about_memory(images_memory(env, self.buffer_size))

    def _policy_arguments(self) -> dict[str, Any]:
        return {"horizon_length": self.horizon_length, "n_action_steps": self.n_action_steps}

    # The dataset.

    def _make_offline_buffer(self, data: OfflineDataset) -> OfflineBuffer:
        check_chunks(data, self.horizon_length)
        warn_about_short_trajectories(data, self.n_steps, "n_steps")
        buffer = OfflineBuffer(data, self.observation_space, self.action_space, self.device, self.sparse_rewards)
        if self.hindsight:
            if self.dataset_on_device:
                raise ValueError("`hindsight` computes rewards on the CPU: set `dataset_on_device=False`.")
            buffer.check_hindsight()
        return buffer

    def _require_dataset(self) -> None:
        if self.offline_buffer is not None or self.dataset is not None:
            try:
                super()._require_dataset()
            except DatasetError as error:
                again = "Pass it again, by `model.set_dataset(...)` or `load(..., dataset=...)`."
                if self._in_offline_phase():
                    raise DatasetError(f"The model's dataset {short(self.dataset)} cannot be read: {error} {again}") from error
                warnings.warn(
                    f"Going on without {self.dataset_name!r}: batches come from the replay buffer only. ({error} {again})",
                    stacklevel=3,
                )
                self.dataset = None  # else each batch would try to read it
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
        :return: The batch; rewards are normalized by ``VecNormalize``, observations are neither normalized nor augmented
        """
        n_offline = 0 if self.offline_buffer is None else len(self.offline_buffer)
        count = offline_count(batch_size, n_offline, len(self.replay_buffer), self.balanced_sampling, self.host_generator)
        parts = []
        for buffer, n in ((self.offline_buffer, count), (self.replay_buffer, batch_size - count)):
            if buffer is not None and n > 0:
                parts.append(self.draw_from(buffer, buffer.draw_indices(n, self.host_generator)))
        if not parts:
            raise ValueError(
                "There is neither a dataset nor a collected transition to train on: pass `dataset`, or call `learn`."
            )
        return parts[0] if len(parts) == 1 else concatenate(*parts)

    def draw_from(self, buffer: Any, indices: th.Tensor) -> Batch:
        env = self._vec_normalize_env
        hindsight = Hindsight(self.hindsight, self._compute_reward, self.host_generator) if self.hindsight else None
        return buffer.draw(indices, self.n_steps, self.gamma, self.horizon_length, env, hindsight)  # type: ignore[no-any-return]

    def _compute_reward(self, achieved: np.ndarray, desired: np.ndarray) -> np.ndarray:
        """The rewards of the environment for goals, each ``(n, *shape)``."""
        if self.env is None or not self.env.has_attr("compute_reward"):
            raise ValueError(
                "`hindsight` needs the function `compute_reward(achieved_goal, desired_goal, info)` of an environment: pass "
                "one that has it, or set `hindsight=0`."
            )
        infos: list[dict[str, Any]] = [{} for _ in achieved]
        rewards: np.ndarray = self.env.env_method("compute_reward", achieved, desired, infos, indices=[0])[0]
        return rewards

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
        """After a reset of the environments, start new trajectories in the replay buffer and new chunks."""
        where = "The first observation of an episode"
        if self._vec_normalize_env is not None:
            check_observation(self._vec_normalize_env.get_original_obs(), self.observation_space, where, of_environments=True)
        check_observation(self._last_obs, self.observation_space, where, of_environments=True)
        self.replay_buffer.cut()
        self._policy_state = None
        self.run.episodes_are_stale = False

    def _run_phases(self, total_timesteps: int, callback: BaseCallback, log_interval: int) -> None:
        if self._learn_offline(total_timesteps, callback):
            self._learn_online(total_timesteps, callback, log_interval)
        self.check_finite()

    def _learn_online(self, total_timesteps: int, callback: BaseCallback, log_interval: int) -> None:
        """As ``OffPolicyAlgorithm.learn``, except that ``learning_starts`` counts environment steps only."""
        assert self.env is not None and isinstance(self.train_freq, TrainFreq)
        # `time/fps` counts environment steps only.
        self.start_time, self._num_timesteps_at_start = time.time_ns(), self.num_timesteps
        # If `train_freq` counts episodes, the end of the last rollout is not known.
        if self.num_timesteps < total_timesteps and self.train_freq.unit is TrainFrequencyUnit.STEP:
            per_rollout = self.train_freq.frequency * self.n_envs
            last = self.n_env_steps + math.ceil((total_timesteps - self.num_timesteps) / per_rollout) * per_rollout
            if last <= self.learning_starts:
                warn(
                    f"Nothing is learned in this online phase: it ends after {last:,} environment steps, and updates "
                    f"begin after `learning_starts`, {self.learning_starts:,}. Choose a smaller `learning_starts`, or more "
                    "timesteps."
                )
        first_episodes = FirstEpisodes()
        while self.num_timesteps < total_timesteps:
            if self.run.episodes_are_stale:
                self._restart_episodes()
            with named_returns(self), before_normalization(self._vec_normalize_env) as raw_infos:
                rollout = self.collect_rollouts(
                    self.env,
                    train_freq=self.train_freq,
                    action_noise=self.action_noise,
                    callback=CheckedSteps(callback, partial(self._check_step, raw_infos), first_episodes),
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
        """After a checkpoint, reset the environments, with seeds from the state of training."""
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
        # As in the base class, except that learning_starts counts environment steps, that a policy trained offline is used
        # instead of random actions, and that chunks are executed to their end.
        if self._n_updates == 0 and self.n_env_steps < learning_starts:
            actions = np.array([self.action_space.sample() for _ in range(n_envs)])
        else:
            assert self._last_obs is not None
            self.check_finite()
            # With the generator of training, so that evaluations do not change training.
            policy = self.policy.exploring(self.generator)
            actions, self._policy_state = policy.predict(self._last_obs, self._policy_state, self._last_episode_starts)
        # Not in `_on_step`, which runs after the callbacks: they save and log this counter.
        self.n_env_steps += n_envs
        buffer_actions = self.policy.scale_action(actions)
        if action_noise is not None:
            buffer_actions = buffer_actions + action_noise()
            check_explored(buffer_actions, self.n_env_steps)
        clipped = np.clip(buffer_actions, -1.0, 1.0)
        return self.policy.unscale_action(clipped), self.stored_action(buffer_actions)

    def stored_action(self, actions: np.ndarray) -> np.ndarray:
        """
        Get the actions that the replay buffer stores: by default the executed ones.

        :param actions: Actions of the rollout, with noise, ``(n_envs, *shape)``; the action space is [-1, 1]
        :return: Actions to store
        """
        clipped: np.ndarray = np.clip(actions, -1.0, 1.0)
        return clipped

    def _check_step(
        self,
        raw_infos: list[dict[str, Any]],
        new_obs: Any,
        rewards: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        """Check a step of the environments, before callbacks see it and before it is stored."""
        try:
            if (env := self._vec_normalize_env) is not None:  # it clips infinity
                raw = env.get_original_obs(), env.get_original_reward(), raw_infos
                check_step(*raw, self.observation_space, self.n_env_steps)
            check_step(new_obs, rewards, infos, self.observation_space, self.n_env_steps)
        except ValueError as error:
            if not_finite(statistics_of(self._vec_normalize_env)) is None:
                raise
            raise ValueError(
                f"{error} The statistics of `VecNormalize` are not finite any more: create the environment again, and resume "
                "from the last checkpoint."
            ) from error

    def _store_transition(
        self, replay_buffer: Any, buffer_action: Any, new_obs: Any, reward: Any, dones: np.ndarray, infos: Any
    ) -> None:
        if any(done and info.get("terminal_observation") is None for done, info in zip(dones, infos, strict=True)):
            warn(
                "An episode has ended, but `infos` does not have its last observation (`terminal_observation`, as in the "
                "vectorized environments of Stable-Baselines3): the first one of the next episode is stored in its place."
            )
        super()._store_transition(replay_buffer, buffer_action, new_obs, reward, dones, infos)
        self._last_episode_starts = dones

    def dump_logs(self) -> None:
        """Write the log of the current phase."""
        if self._in_offline_phase():
            return super().dump_logs()
        self._record_training()
        OffPolicyAlgorithm.dump_logs(self)

    def inputs_not_finite(self) -> list[str]:
        return super().inputs_not_finite() + ["replay buffer"] * (self.replay_buffer.not_finite() is not None)

    # Saving.

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_policy_state"]

    def save_replay_buffer(self, path: str | pathlib.Path | io.BufferedIOBase) -> None:
        """
        Save the replay buffer of the online phase. The dataset is not part of it.

        :param path: A path (``.pkl`` is added if it has no suffix), or an open file
        """
        save_replay_buffer(self.replay_buffer, path)

    def load_replay_buffer(self, path: Any, truncate_last_traj: bool = True, *, trusted: bool = False) -> None:
        """
        Load a replay buffer saved by ``save_replay_buffer``.

        :param path: A path, or an open file
        :param truncate_last_traj: Whether to end the last trajectories. If False, the next transitions continue them.
        :param trusted: Whether pickles, as written by version 0.1, are read, which runs any code that they contain
        :raises FileNotFoundError: If there is no such file.
        :raises ValueError: If it is not a replay buffer, has other spaces, or is a pickle that is not trusted.
        """
        self.replay_buffer = load_replay_buffer(path, self.replay_buffer, type(self).__name__, trusted)
        if truncate_last_traj:
            self.replay_buffer.cut()

    def save_run(self, folder: pathlib.Path) -> None:
        super().save_run(folder)
        if len(self.replay_buffer) > 0:
            self.save_replay_buffer(folder / checkpoints.BUFFER)

    def load_run(self, folder: pathlib.Path, trusted: bool = False) -> None:
        super().load_run(folder, trusted)
        path = checkpoints.part(folder, checkpoints.BUFFER)
        if path.exists():
            self.load_replay_buffer(path, trusted=trusted)
