"""
The base of all algorithms: training on a data set, on an environment, or on one after the other.

``num_timesteps`` is the training clock. It runs through both phases: a timestep is one gradient step of the offline phase
or one step of the environment, so that every callback, schedule and checkpoint of Stable-Baselines3 works in both. What
was really done is counted apart, in ``n_offline_updates`` and ``n_env_steps``.
"""

import io
import math
import pathlib
import sys
import time
import warnings
from collections.abc import Iterable
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule, TrainFreq
from stable_baselines3.common.vec_env import VecEnv

from sb3_flow.common import checkpoints
from sb3_flow.common.batches import CROP_PAD, augment, concatenate, normalize, offline_count
from sb3_flow.common.buffers import OfflineBuffer
from sb3_flow.common.dataset import OfflineDataset, read_dataset
from sb3_flow.common.encoders import image_keys
from sb3_flow.common.environments import check_actions, register_environment, report_success
from sb3_flow.common.execution import make_execution
from sb3_flow.common.online_buffer import OnlineBuffer
from sb3_flow.common.policies import FlowPolicy
from sb3_flow.common.saving import Saving
from sb3_flow.common.statistics import observation_statistics, prepare_vec_normalize
from sb3_flow.common.types import Batch
from sb3_flow.common.updates import FlowAlgorithm

SelfAlgorithm = TypeVar("SelfAlgorithm", bound="OfflineToOnlineAlgorithm")


class OfflineToOnlineAlgorithm(FlowAlgorithm, Saving):
    """
    Base class of the flow algorithms. A subclass gives ``draw_noise`` and ``loss``, and its policy.

    :param policy: ``"FlowPolicy"`` (or a policy class); it picks its features extractor by the observation space.
    :param env: Environment, or its id
    :param learning_rate: Learning rate of the optimiser, or a function of the remaining progress (from 1 to 0)
    :param buffer_size: Capacity of the replay buffer for what is collected online; the data set is kept apart.
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
    :param sparse_rewards: Whether every reward other than 0 counts as -1, in the data and online: a task whose reward is minus
        the number of things left to do then has one that only tells whether all is done.
    :param max_grad_norm: What the norm of the gradients of all networks together is clipped to; None: they are not clipped.
    :param dataset: Offline data: a name (``"cube-single-play-v0"``, ``"ogbench:..."``, ``"minari:..."``), the path of a
        ``.npz`` or ``.hdf5`` file, a ``minari.MinariDataset``, a dictionary of arrays or a replay buffer.
    :param offline_steps: How many timesteps train on the data set before the environment is used. None: all of them,
        where there is a data set.
    :param balanced_sampling: Online, whether half of each batch comes from the data set and half from the replay buffer;
        if not, all transitions are equally likely.
    :param normalize_observations: Whether vector observations are normalised by the data set's mean and standard
        deviation; the statistics are part of the policy.
    :param crop_probability: Probability that a batch of images is augmented by random crops
    :param offline_log_interval: Number of offline updates between two lines of the log
    :param policy_kwargs: Arguments of the policy
    :param stats_window_size: Number of episodes that the logged averages are taken over
    :param tensorboard_log: Folder of TensorBoard's log
    :param verbose: 0: nothing, 1: information, 2: debugging
    :param seed: Seed of all random generators
    :param compile: How updates are executed: False (operator by operator), True (``torch.compile`` of the losses) or
        ``"cudagraph"`` (the whole update as one CUDA graph). The numbers are the same up to rounding; see docs/speed.md.
    :param device: ``"cpu"``, ``"cuda"`` or ``"auto"``
    :param _init_setup_model: Whether to build the networks at once
    """

    policy: FlowPolicy
    policy_class: type[FlowPolicy]
    action_space: spaces.Box
    replay_buffer: OnlineBuffer

    #: What ``learn`` trains for when it is given no number: the budget of the published offline results.
    default_timesteps: ClassVar[int] = 1_000_000
    #: Whether the losses use rewards. Imitation does not.
    needs_rewards: ClassVar[bool] = True
    #: Whether actions that explore are stored as they are made, clipped to the action space.
    clip_final: bool = True
    #: How far random crops shift an image, in pixels; whether what follows an action is shifted apart from what precedes it.
    crop_pad: ClassVar[int] = CROP_PAD
    crops_differ: ClassVar[bool] = False

    def __init__(
        self,
        policy: str | type[FlowPolicy],
        env: GymEnv | str,
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
        max_grad_norm: float | None = None,
        dataset: Any = None,
        offline_steps: int | None = None,
        balanced_sampling: bool = False,
        normalize_observations: bool = False,
        crop_probability: float = 0.5,
        offline_log_interval: int = 1_000,
        policy_kwargs: dict[str, Any] | None = None,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        verbose: int = 0,
        seed: int | None = None,
        compile: bool | str = False,
        device: th.device | str = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        if isinstance(env, str):
            register_environment(env)
        super().__init__(
            policy,
            env,
            learning_rate,
            buffer_size,
            learning_starts,
            batch_size,
            tau,
            gamma,
            train_freq,
            gradient_steps,
            action_noise,
            n_steps=n_steps,
            policy_kwargs=dict(policy_kwargs or {}),
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            verbose=verbose,
            seed=seed,
            device=device,
            sde_support=False,
            supported_action_spaces=(spaces.Box,),
            support_multi_env=True,
        )
        for name, value, low, high in (
            ("n_steps", n_steps, 1, math.inf),
            ("batch_size", batch_size, 1, math.inf),
            ("gradient_steps", gradient_steps, -1, math.inf),
            ("offline_steps", offline_steps or 0, 0, math.inf),
            ("tau", tau, 0, 1),
            ("gamma", gamma, 0, 1),
            ("crop_probability", crop_probability, 0, 1),
        ):
            if not low <= value <= high:
                expected = f"at least {low}" if high == math.inf else f"in [{low}, {high}]"
                raise ValueError(f"`{name}` is {value}; it must be {expected}.")
        if max_grad_norm is not None and not max_grad_norm > 0:
            raise ValueError(f"`max_grad_norm` is {max_grad_norm}; it must be above 0, or None for gradients as they are.")
        if n_steps > 1 and horizon_length > 1:
            raise ValueError(f"Chunks of {horizon_length} actions have returns over as many steps: leave `n_steps` at 1.")
        if offline_steps and dataset is None and _init_setup_model:
            raise ValueError(f"`offline_steps={offline_steps}` needs data to train on: pass `dataset` as well.")
        if normalize_observations and dataset is None and _init_setup_model:
            raise ValueError("`normalize_observations` takes its statistics from a `dataset`; online, use VecNormalize.")
        make_execution(compile, self.device, self.one_graph)  # raises now what it would raise later
        self.compile = compile
        self.horizon_length = horizon_length
        self.sparse_rewards = sparse_rewards
        self.max_grad_norm = max_grad_norm
        self.dataset = dataset
        self.offline_steps = offline_steps
        self.balanced_sampling = balanced_sampling
        self.normalize_observations = normalize_observations
        self.crop_probability = crop_probability
        self.offline_log_interval = offline_log_interval
        self.offline_buffer: OfflineBuffer | None = None
        #: The name of the data that this model was trained on; it is saved, the data is not.
        self.dataset_name: str | None = None
        self.n_offline_updates = 0
        self.n_env_steps = 0
        #: What ``predict`` carries from one step of the environment to the next.
        self._policy_state: tuple[np.ndarray, ...] | None = None
        #: The callbacks that wait for a moment in which nothing is half done.
        self.checkpoints_due: list[checkpoints.TrainingCheckpoint] = []
        #: Between ``resume`` and ``learn``: what is put back at the last moment.
        self.resumed_state: dict[str, Any] | None = None
        #: Whether new episodes must begin before the environments are used.
        self.episodes_are_stale = False
        #: The clock when the current, or last, ``learn`` began
        self.learn_started_at = 0
        if _init_setup_model:
            self._setup_model()
            if dataset is not None:
                self.set_dataset(dataset)

    @staticmethod
    def _wrap_env(env: GymEnv, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        check_actions(env.action_space)
        if not isinstance(env, VecEnv):
            env = report_success(env)
        return OffPolicyAlgorithm._wrap_env(env, verbose, monitor_wrapper)

    def _setup_model(self) -> None:
        self._setup_lr_schedule()
        self.set_random_seed(self.seed)
        self.seed_generators(int(th.randint(2**62, ())))
        self.generator_state = self.random_state()
        if self.replay_buffer is None:
            self.replay_buffer = OnlineBuffer(
                self.buffer_size, self.observation_space, self.action_space, self.device, self.n_envs, self.sparse_rewards
            )
        arguments = self._policy_arguments()
        self.policy = self.policy_class(
            self.observation_space, self.action_space, self.lr_schedule, **arguments, **self.policy_kwargs
        ).to(self.device)
        self._convert_train_freq()

    def _policy_arguments(self) -> dict[str, Any]:
        """The arguments of the policy that are arguments of the algorithm."""
        return {"horizon_length": self.horizon_length}

    # The data set.

    def set_dataset(self, dataset: Any) -> None:
        """
        Set, or replace, the data of the offline phase.

        :param dataset: As the argument of the constructor
        :raises DatasetError: If it cannot be read, is damaged, or does not fit the environment.
        """
        if isinstance(dataset, OnlineBuffer):
            data = dataset.to_dataset(self.policy.unscale_action)
        elif isinstance(dataset, ReplayBuffer):
            data = OfflineDataset.from_replay_buffer(dataset, self.policy.unscale_action)
        else:
            data = read_dataset(dataset, self._env_id())
        if self.needs_rewards and data.rewards is None:
            raise ValueError(
                f"{data.name}: it has no rewards, which {type(self).__name__} needs. For OGBench's data, make the model with "
                "one of its single-task environments, such as 'cube-single-singletask-task2-v0'."
            )
        self.offline_buffer = OfflineBuffer(data, self.observation_space, self.action_space, self.device, self.sparse_rewards)
        self.dataset, self.dataset_name = dataset, data.name
        if self._n_updates > 0:
            return  # The policy was trained with the statistics that it has.
        if self.normalize_observations:
            if self._vec_normalize_env is not None and self._vec_normalize_env.norm_obs:
                raise ValueError("Observations would be normalised twice: use VecNormalize or `normalize_observations`.")
            for key, (mean, var) in observation_statistics(data, self.observation_space).items():
                self.policy.normalizer.set_statistics(key, th.as_tensor(mean), th.as_tensor(var).sqrt())
        if self._vec_normalize_env is not None:
            prepare_vec_normalize(self._vec_normalize_env, data)

    def _env_id(self) -> str | None:
        spec = None if self.env is None else self.env.get_attr("spec", 0)[0]
        return None if spec is None else spec.id

    def _require_dataset(self) -> None:
        """After ``load``, read the data again; a saved model has its name only."""
        if self.offline_buffer is not None:
            return
        if self.dataset is not None:
            self.set_dataset(self.dataset)
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

    def sample_batch(self, batch_size: int) -> Batch:
        """
        Draw a batch from the data set, the replay buffer, or both.

        :param batch_size: Number of transitions
        :return: The batch, normalised by ``VecNormalize`` and augmented where these are in use
        """
        n_offline = 0 if self.offline_buffer is None else len(self.offline_buffer)
        count = offline_count(batch_size, n_offline, len(self.replay_buffer), self.balanced_sampling, self.host_generator)
        parts = []
        for buffer, n in ((self.offline_buffer, count), (self.replay_buffer, batch_size - count)):
            if buffer is not None and n > 0:
                indices = th.randint(len(buffer), (n,), generator=self.host_generator)
                parts.append(self.draw_from(buffer, indices))
        if not parts:
            raise ValueError("There is nothing to train on: no data set, and no transition collected yet.")
        batch = parts[0] if len(parts) == 1 else concatenate(*parts)
        batch = normalize(batch, self._vec_normalize_env)
        if not image_keys(self.observation_space) or th.rand((), generator=self.host_generator) >= self.crop_probability:
            return batch
        offsets = [
            th.randint(2 * self.crop_pad + 1, (batch_size, 2), generator=self.generator, device=self.device)
            for _ in range(2 if self.crops_differ else 1)
        ]
        return augment(batch, self.observation_space, offsets[0], offsets[-1], self.crop_pad)

    # The two phases.

    def learn(
        self: SelfAlgorithm,
        total_timesteps: int | None = None,
        callback: MaybeCallback = None,
        log_interval: int = 4,
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfAlgorithm:
        """
        Train: first on the data set, as long as ``offline_steps`` last, then on the environment.

        :param total_timesteps: Offline updates and environment steps together; by default ``default_timesteps``
        :param callback: Callbacks, called at each timestep of either phase
        :param log_interval: Online, number of episodes between two lines of the log
        :param tb_log_name: Name of the run in TensorBoard; by default that of the algorithm
        :param reset_num_timesteps: Whether the clock starts from zero. The offline steps are spent once all the same.
        :param progress_bar: Whether to show a progress bar
        :return: The model
        :raises ValueError: If the data set is missing after ``load``, or a loss is not finite.
        """
        self._require_dataset()
        total_timesteps = self.default_timesteps if total_timesteps is None else total_timesteps
        self.checkpoints_due = []
        resumed_state, self.resumed_state = self.resumed_state, None
        if resumed_state is not None:  # This is the rest of the call that was interrupted.
            total_timesteps, reset_num_timesteps = total_timesteps + self.learn_started_at - self.num_timesteps, False
        else:
            self.learn_started_at = 0 if reset_num_timesteps else self.num_timesteps
        will_reset = reset_num_timesteps or self._last_obs is None
        total_timesteps, callback = self._setup_learn(
            total_timesteps,
            callback,
            reset_num_timesteps,
            tb_log_name or type(self).__name__,
            progress_bar,
        )
        if will_reset:
            self.replay_buffer.cut()
            self._policy_state = None
            self.episodes_are_stale = False
        callback.on_training_start(locals(), globals())
        if resumed_state is not None:
            checkpoints.go_on(self, callback, resumed_state)
        try:
            if self._learn_offline(total_timesteps, callback):
                self._learn_online(total_timesteps, callback, log_interval)
            self.check_finite()
        finally:
            # Also after Ctrl-C, so that a progress bar is closed; the model can be used and saved.
            callback.on_training_end()
        return self

    def _learn_offline(self, total_timesteps: int, callback: BaseCallback) -> bool:
        """One timestep is one gradient step. Returns whether to go on."""
        if not (self._in_offline_phase() and self.num_timesteps < total_timesteps):
            return True
        assert self.env is not None
        # What callbacks look for among the local variables.
        dones, infos = np.zeros(self.env.num_envs, dtype=bool), [dict[str, Any]() for _ in range(self.env.num_envs)]
        updates_at_start, time_at_start = self.n_offline_updates, time.time()
        next_log = self.n_offline_updates + self.offline_log_interval
        while self._in_offline_phase() and self.num_timesteps < total_timesteps:
            self.train(gradient_steps=self.env.num_envs, batch_size=self.batch_size)
            self.n_offline_updates += self.env.num_envs
            self.num_timesteps += self.env.num_envs
            self._update_current_progress_remaining(self.num_timesteps, total_timesteps)
            if self.n_offline_updates >= next_log:
                next_log += self.offline_log_interval
                speed = (self.n_offline_updates - updates_at_start) / max(time.time() - time_at_start, sys.float_info.epsilon)
                self.logger.record("time/updates_per_second", speed)
                self.dump_logs()
            callback.update_locals({"dones": dones, "infos": infos, "self": self})
            if not callback.on_step():
                return False
            checkpoints.write_due(self, callback)
        return True

    def _learn_online(self, total_timesteps: int, callback: BaseCallback, log_interval: int) -> None:
        """As ``OffPolicyAlgorithm.learn``, except that ``learning_starts`` counts steps of the environment."""
        assert self.env is not None and isinstance(self.train_freq, TrainFreq)
        # So that `time/fps` counts steps of the environment only.
        self.start_time, self._num_timesteps_at_start = time.time_ns(), self.num_timesteps
        while self.num_timesteps < total_timesteps:
            if self.episodes_are_stale:
                checkpoints.begin_episodes(self)
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

    def explorer(self) -> FlowPolicy:
        """The policy as it acts in training."""
        return self.policy

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
            policy = self.explorer()
            # From the stream of training: how often one evaluates, or predicts, makes no difference.
            with policy.drawing_from(self.generator):
                actions, self._policy_state = policy.predict(self._last_obs, self._policy_state, self._last_episode_starts)
        # Here and not in _on_step, which runs after the callbacks: what they save and log is to agree with the clock.
        self.n_env_steps += n_envs
        buffer_actions = self.policy.scale_action(actions)
        if action_noise is not None:
            buffer_actions = buffer_actions + action_noise()
        clipped = np.clip(buffer_actions, -1.0, 1.0)
        return self.policy.unscale_action(clipped), clipped if self.clip_final else buffer_actions

    def _store_transition(
        self, replay_buffer: Any, buffer_action: Any, new_obs: Any, reward: Any, dones: np.ndarray, infos: Any
    ) -> None:
        super()._store_transition(replay_buffer, buffer_action, new_obs, reward, dones, infos)
        self._last_episode_starts = dones

    def dump_logs(self) -> None:
        """Write the log: averages over the updates since the last time, and what was done so far."""
        self.check_finite()
        for name, value in self._metrics.means().items():
            self.logger.record(f"train/{name}", value)
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self.logger.record("time/offline_updates", self.n_offline_updates)
        self.logger.record("time/env_steps", self.n_env_steps)
        if not self._in_offline_phase():
            return super().dump_logs()
        # Without `time/fps`: these were no steps of the environment.
        self.logger.record("time/time_elapsed", int((time.time_ns() - self.start_time) / 1e9), exclude="tensorboard")
        self.logger.record("time/total_timesteps", self.num_timesteps, exclude="tensorboard")
        self.logger.dump(step=self.num_timesteps)

    # Saving.

    def _excluded_save_params(self) -> list[str]:
        excluded = [*super()._excluded_save_params(), "offline_buffer", "generator", "host_generator"]
        excluded += ["_metrics", "_execution", "_policy_state", "checkpoints_due", "resumed_state"]
        # A name or path can be read again; arrays stay out of the model's file.
        return excluded if isinstance(self.dataset, str | pathlib.PurePath) else [*excluded, "dataset"]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["policy", "policy.optimizer"], ["generator_state"]

    def save(
        self,
        path: str | pathlib.Path | io.BufferedIOBase,
        exclude: Iterable[str] | None = None,
        include: Iterable[str] | None = None,
    ) -> None:
        self.check_finite()
        if not all(bool(th.isfinite(parameter).all()) for parameter in self.policy.parameters()):
            raise ValueError("The parameters are not finite, so they are not saved: go back to the last checkpoint.")
        self.generator_state = self.random_state()
        super().save(path, exclude, include)

    @classmethod
    def load(cls: type[SelfAlgorithm], path: Any, env: GymEnv | None = None, *args: Any, **kwargs: Any) -> SelfAlgorithm:
        model = super().load(path, env, *args, **kwargs)
        model.set_random_state(model.generator_state)
        return model
