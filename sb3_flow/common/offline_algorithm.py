"""
Base class of algorithms that train on a dataset.

A timestep of the offline phase is a gradient step, so callbacks, schedules and checkpoints of Stable-Baselines3 work.
``n_offline_updates`` counts these steps over all calls of ``learn``.
"""

import io
import pathlib
import sys
import time
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from sb3_flow.common import checkpoints
from sb3_flow.common.arguments import CheckedArguments, check_changes, check_load_arguments, check_policy
from sb3_flow.common.checkpoints import Run
from sb3_flow.common.checkpoints.saving import (
    load_errors,
    policy_classes,
    require_own_model,
    require_own_policy,
    save_model,
    unpack_settings,
)
from sb3_flow.common.checkpoints.tensorboard import hide_later_steps
from sb3_flow.common.data.checks import (
    check_choices,
    warn_about_lost_rewards,
    warn_about_narrow_actions,
    warn_about_precision,
    warn_about_scale,
)
from sb3_flow.common.data.columns import DatasetError, short
from sb3_flow.common.data.dataset import OfflineDataset
from sb3_flow.common.data.digest import digest
from sb3_flow.common.data.follow import follow_environment
from sb3_flow.common.data.no_environment import NoEnvironment, WithinSpaces, buffers_in
from sb3_flow.common.data.offline_buffer import OfflineBuffer
from sb3_flow.common.data.online_buffer import OnlineBuffer
from sb3_flow.common.data.sources import names_a_source, read_dataset
from sb3_flow.common.data.statistics import lacks_statistics, normalizes, prepare_vec_normalize, warn_about_new_statistics
from sb3_flow.common.environments import as_environment, register_environment, report_success
from sb3_flow.common.files import atomic_write, file_to_read, file_to_write, is_path, read_settings
from sb3_flow.common.guards import check_device, check_learn, not_finite, statistics_of
from sb3_flow.common.progress import ProgressLinesCallback
from sb3_flow.common.vec_envs import check_wrapper_order, env_id_of
from sb3_flow.common.warn import warn

SelfOffline = TypeVar("SelfOffline", bound="OfflineAlgorithm")


class OfflineAlgorithm(BaseAlgorithm, metaclass=CheckedArguments):
    """
    Base class of algorithms that train on a dataset. A subclass defines ``train(gradient_steps, batch_size)``.

    :param policy: Policy class, or its name
    :param env: Environment, or its id. None: the spaces are taken from the dataset; call ``set_env`` before evaluation.
    :param args: Arguments of the next base class, like ``kwargs``
    :param dataset: Dataset: a name (``"cube-single-play-v0"``, ``"ogbench:..."``, ``"minari:..."``), the path of a
        ``.npz`` or ``.hdf5`` file, a ``minari.MinariDataset``, a dictionary of arrays or a replay buffer
    :param offline_log_interval: Number of offline updates between two log entries
    """

    action_space: spaces.Box
    batch_size: int
    #: Method that draws batches and performs updates, with the arguments ``(gradient_steps, batch_size)``.
    train: Any
    #: Default of ``total_timesteps``, as in published offline results.
    default_timesteps: ClassVar[int] = 1_000_000
    #: Whether the losses use rewards. Imitation algorithms do not.
    needs_rewards: ClassVar[bool] = True

    def __init__(
        self,
        policy: str | type[BasePolicy],
        env: GymEnv | str | None = None,
        *args: Any,
        dataset: Any = None,
        offline_log_interval: int = 1_000,
        **kwargs: Any,
    ) -> None:
        check_device(kwargs.get("device", "auto"))
        check_policy(type(self), policy)
        if isinstance(env, str):
            register_environment(env)
        #: The dataset that was read last, until the buffer is created, so that it is not read twice.
        self._just_read: tuple[Any, OfflineDataset] | None = None
        if env is None and dataset is not None:
            env = self._spaces_of(dataset)
        #: Whether the spaces are those of the dataset. Then any environment that they fit is accepted.
        self.spaces_from_data = isinstance(env, NoEnvironment)
        super().__init__(policy, env, *args, **kwargs)
        self.dataset = dataset
        self.offline_log_interval = offline_log_interval
        self.offline_buffer: OfflineBuffer | None = None
        #: Name of the dataset. It is saved with the model, the data is not.
        self.dataset_name: str | None = None
        self.dataset_digest: str | None = None
        #: Whether ``VecNormalize`` normalized the observations of training; None: not trained yet, or by version 0.1.
        self.trained_normalized: bool | None = None
        self.n_offline_updates = 0
        #: Environment steps of training, 0 for algorithms that only train on a dataset.
        self.n_env_steps = 0
        self.run = Run()

    def _spaces_of(self, dataset: Any) -> NoEnvironment:
        """An environment that has only the spaces of the dataset."""
        if next(buffers_in(dataset), None) is None:
            self._just_read = dataset, read_dataset(dataset)
        env = NoEnvironment.of(dataset if self._just_read is None else self._just_read[1])
        low, high = short(env.action_space.low), short(env.action_space.high)
        warn(
            f"There is no environment: the spaces are taken from the dataset. Actions are in [{low}, {high}]; observations: "
            f"{short(env.observation_space)}."
        )
        return env

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        """
        As in Stable-Baselines3. A model that was created from a dataset only accepts any environment that its spaces fit, and
        before its first step any number of environments.

        :param env: The environment
        :param force_reset: As in Stable-Baselines3
        """
        env = as_environment(env)
        if self.spaces_from_data and not isinstance(env, NoEnvironment):
            env = WithinSpaces(self._wrap_env(env, self.verbose), self.observation_space, self.action_space)
            if self.n_env_steps == 0:
                self.n_envs = env.num_envs
        super().set_env(env, force_reset)
        self._compare_normalization()

    def _compare_normalization(self) -> None:
        """Warn if ``VecNormalize`` normalizes observations of the environment, and did not in training, or the reverse."""
        if self.trained_normalized is None or normalizes(self._vec_normalize_env) == self.trained_normalized:
            return
        if self.trained_normalized:
            warn(
                "This model was trained on observations that `VecNormalize` normalized, which this environment does not have, "
                "so that the policy sees other numbers. Wrap it: `VecNormalize.load(path, venv)`."
            )
        else:
            warn(
                "`VecNormalize` normalizes the observations of this environment, but this model was trained without it, so "
                "that the policy sees other numbers. Leave it out, or pass `norm_obs=False`."
            )

    @staticmethod
    def _wrap_env(env: GymEnv, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        env = as_environment(env)
        if not isinstance(env, VecEnv):
            env = report_success(env)
        wrapped = BaseAlgorithm._wrap_env(env, verbose, monitor_wrapper)
        check_wrapper_order(wrapped)
        return wrapped

    # The dataset.

    def set_dataset(self, dataset: Any) -> None:
        """
        Set, or replace, the dataset of the offline phase.

        :param dataset: As in the constructor
        :raises DatasetError: If it cannot be read, is damaged, or does not fit the environment.
        """
        data = self._read_dataset(dataset)
        if self.needs_rewards and data.rewards is None:
            raise ValueError(
                f"{data.name}: it has no rewards, which {type(self).__name__} needs. Add `rewards`, or imitate the data with "
                "StreamingFlow or a chunk baseline, which need none. For OGBench's data, make the model with one of its "
                "single-task environments, such as 'cube-single-singletask-task2-v0'."
                + "".join(f" {remark}." for remark in data.remarks if "no rewards" in remark)
            )
        data = follow_environment(data, self.observation_space, self.env)
        if self.needs_rewards:
            warn_about_lost_rewards(data)
        check_choices(data, self.observation_space)
        self.offline_buffer = self._make_offline_buffer(data)
        warn_about_scale(data, self.observation_space)
        warn_about_narrow_actions(data, self.action_space)
        warn_about_precision(data)
        self._just_read = None
        self.dataset, self.dataset_name, self.dataset_digest = dataset, data.name, digest(data)
        if self._n_updates == 0:  # later, the policy keeps the statistics of training
            self._set_statistics(data)
        elif self._vec_normalize_env is not None and lacks_statistics(self._vec_normalize_env, data):
            warn(
                "This model was trained, but the `VecNormalize` of its environment has no statistics: they are taken from the "
                "dataset. To use those of training, wrap the environment by `VecNormalize.load(path, venv)`."
            )
            prepare_vec_normalize(self._vec_normalize_env, data)

    def _read_dataset(self, dataset: Any) -> OfflineDataset:
        if self._just_read is not None and self._just_read[0] is dataset:
            return self._just_read[1]
        # Only names and files depend on the environment.
        named = self.env is not None and names_a_source(dataset)
        return read_dataset(self._with_buffers_read(dataset), env_id_of(self.env) if named and self.env is not None else None)

    def _with_buffers_read(self, source: Any) -> Any:
        """Read the replay buffers in a source, whose actions are scaled by the action space."""
        if isinstance(source, list | tuple):
            return [self._with_buffers_read(part) for part in source]
        if isinstance(source, Mapping) and "source" in source:
            return {**source, "source": self._with_buffers_read(source["source"])}
        if not isinstance(source, ReplayBuffer):
            return source
        if source.action_space != self.action_space:
            raise DatasetError(
                f"The replay buffer has actions in {source.action_space}, scaled to [-1, 1]; the action space of this model "
                f"is {self.action_space}. Use one of an environment with the same actions, or a dictionary of arrays."
            )
        if isinstance(source, OnlineBuffer):
            return source.to_dataset(self.policy.unscale_action)
        return OfflineDataset.from_replay_buffer(source, self.policy.unscale_action)

    def _make_offline_buffer(self, data: OfflineDataset) -> OfflineBuffer:
        imitation = not self.needs_rewards
        return OfflineBuffer(data, self.observation_space, self.action_space, self.device, imitation=imitation)

    def _set_statistics(self, data: OfflineDataset) -> None:
        """Set the statistics for normalization of observations and rewards from the dataset."""
        if self._vec_normalize_env is not None:
            prepare_vec_normalize(self._vec_normalize_env, data)

    def _require_dataset(self) -> None:
        """After ``load``, read the dataset again. A saved model has only its name."""
        if self.offline_buffer is not None:
            return
        if self.dataset is not None:
            self.set_dataset(self.dataset)
        elif self.dataset_name is not None:
            raise ValueError(
                f"This model trains on {self.dataset_name!r}, which is not part of the saved file. Pass it again, by "
                "`model.set_dataset(...)` or `load(..., dataset=...)`."
            )
        else:
            raise ValueError(
                f"{type(self).__name__} trains on a dataset, but there is none: pass `dataset`, or call "
                "`model.set_dataset(...)`, before `learn`."
            )

    # Training.

    def learn(
        self: SelfOffline,
        total_timesteps: int | None = None,
        callback: MaybeCallback = None,
        log_interval: int = 4,
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfOffline:
        """
        Train.

        :param total_timesteps: Number of timesteps: offline updates and environment steps. By default ``default_timesteps``
        :param callback: Callbacks, called at each timestep of both phases
        :param log_interval: Online, number of episodes between two log entries; offline, see ``offline_log_interval``
        :param tb_log_name: Name of the run in TensorBoard; by default the name of the algorithm
        :param reset_num_timesteps: Whether to reset ``num_timesteps`` to 0. The offline phase is not repeated.
        :param progress_bar: Whether to show a progress bar; without a terminal, a line of text every 10 seconds
        :return: The model
        :raises ValueError: If the dataset is missing after ``load``, or a loss is not finite.
        """
        total_timesteps, log_interval = check_learn(total_timesteps, callback, log_interval)
        self.require_environment()
        self._require_dataset()
        if self._n_updates == 0:
            self.trained_normalized = normalizes(self._vec_normalize_env)
        elif self.offline_buffer is None and self.trained_normalized:  # otherwise the statistics are those of the dataset
            warn_about_new_statistics(self._vec_normalize_env, self.num_timesteps)
        total_timesteps = self.default_timesteps if total_timesteps is None else total_timesteps
        resumed = self.run.begin(self.num_timesteps, reset_num_timesteps)
        if resumed is not None:  # This call completes the interrupted one.
            total_timesteps, reset_num_timesteps = total_timesteps + self.run.started_at - self.num_timesteps, False
        total_timesteps, callback = self._setup_learn(
            total_timesteps,
            callback,
            reset_num_timesteps,
            tb_log_name or type(self).__name__,
            progress_bar,
        )
        callback.on_training_start(locals(), globals())
        try:
            if resumed is not None:
                hide_later_steps(self.logger, self.num_timesteps)
                checkpoints.go_on(self, callback, resumed)
            self._run_phases(total_timesteps, callback, log_interval)
        finally:
            # Also after Ctrl-C: a progress bar is closed, and the model can be used and saved.
            callback.on_training_end()
        return self

    def _init_callback(self, callback: MaybeCallback, progress_bar: bool = False) -> BaseCallback:
        if progress_bar and not sys.stdout.isatty():
            callbacks = [] if callback is None else callback if isinstance(callback, list) else [callback]
            return super()._init_callback([*callbacks, ProgressLinesCallback()])
        return super()._init_callback(callback, progress_bar)

    def require_environment(self) -> None:
        """After ``load`` without an environment, train with the spaces only."""
        if self.env is None:
            super().set_env(DummyVecEnv([partial(NoEnvironment, self.observation_space, self.action_space)] * self.n_envs))

    def _run_phases(self, total_timesteps: int, callback: BaseCallback, log_interval: int) -> None:
        self._learn_offline(total_timesteps, callback)

    def _in_offline_phase(self) -> bool:
        """Whether the next timestep is an offline update."""
        return True

    def _learn_offline(self, total_timesteps: int, callback: BaseCallback) -> bool:
        """One timestep is one gradient step. Return whether to continue training."""
        if not (self._in_offline_phase() and self.num_timesteps < total_timesteps):
            return True
        assert self.env is not None
        step = self._offline_locals()
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
            callback.update_locals({**step, "self": self, "callback": callback})
            if not callback.on_step():
                return False
            checkpoints.write_due(self, callback)
        return True

    def _offline_locals(self) -> dict[str, Any]:
        """
        The ``locals`` of callbacks in the offline phase, with the names of Stable-Baselines3's rollouts: no episode ends,
        rewards and actions are zero, and observations are those of the last reset.
        """
        assert self.env is not None
        n_envs = self.env.num_envs
        actions = np.zeros((n_envs, *(self.action_space.shape or ())), dtype=self.action_space.dtype)
        return {
            "env": self.env,
            "dones": np.zeros(n_envs, dtype=bool),
            "infos": [dict[str, Any]() for _ in range(n_envs)],
            "rewards": np.zeros(n_envs, dtype=np.float32),
            "new_obs": self._last_obs,
            "actions": actions,
            "buffer_actions": actions.astype(np.float32),
            "num_collected_steps": 0,
            "num_collected_episodes": 0,
        }

    def dump_logs(self) -> None:
        """Write the log of the offline phase. It has no ``time/fps``, because there are no environment steps."""
        self._record_training()
        self.logger.record("time/time_elapsed", int((time.time_ns() - self.start_time) / 1e9), exclude="tensorboard")
        self.logger.record("time/total_timesteps", self.num_timesteps, exclude="tensorboard")
        self.logger.dump(step=self.num_timesteps)

    def _record_training(self) -> None:
        """Record the metrics of training that both phases log."""
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self.logger.record("time/offline_updates", self.n_offline_updates)
        self.logger.record("time/env_steps", self.n_env_steps)

    # Checkpoints of a run; see `checkpoints`.

    @property
    def timesteps_done(self) -> int:
        """The timesteps of all calls of ``learn``. ``num_timesteps`` is reset by each call."""
        return self.n_offline_updates + self.n_env_steps

    def save_run(self, folder: pathlib.Path) -> None:
        """
        Save the model and the statistics of ``VecNormalize``.

        :param folder: An empty folder
        """
        self.save(folder / checkpoints.MODEL)
        if self._vec_normalize_env is not None:
            checkpoints.save_statistics(self._vec_normalize_env, folder / checkpoints.STATISTICS)

    def load_run(self, folder: pathlib.Path, trusted: bool = False) -> None:
        """
        Load what ``save_run`` saved, except for the model and the statistics.

        :param folder: The folder
        :param trusted: Whether pickles are read, which runs any code that they contain
        """
        self._require_dataset()

    def describe_run(self) -> dict[str, Any]:
        """Properties that must not change when a run is resumed: number of environments and transitions, ``VecNormalize``."""
        return {
            "n_envs": self.n_envs,
            "n_transitions": None if self.offline_buffer is None else len(self.offline_buffer),
            "digest": None if self.offline_buffer is None else self.dataset_digest,
            "vec_normalize": self._vec_normalize_env is not None,
        }

    def check_next_update(self) -> None:
        """
        Check that training can continue from a checkpoint, before it is written.

        :raises ValueError: If a parameter is not finite, or the next loss is not.
        """
        self.check_parameters()
        lost = self.not_finite()
        if lost:
            raise ValueError(
                f"No checkpoint is written after {self.timesteps_done} timesteps, because numbers in it are not finite: "
                f"{', '.join(lost)}. Resume from the last checkpoint, and check the environment and the data."
            )

    def not_finite(self) -> list[str]:
        """The parts of a checkpoint that have numbers that are not finite, such as ``"optimizer"``."""
        lost = [name.removeprefix("policy.") for name, state in self.get_parameters().items() if not_finite(state) is not None]
        return lost + self.inputs_not_finite()

    def inputs_not_finite(self) -> list[str]:
        """Names of the sources of batches that have numbers that are not finite."""
        return ["statistics of VecNormalize"] * (not_finite(statistics_of(self._vec_normalize_env)) is not None)

    def check_parameters(self) -> None:
        """
        :raises ValueError: If a parameter of the policy is not finite.
        """
        if not all(bool(th.isfinite(parameter).all()) for parameter in self.policy.parameters()):
            raise ValueError("The parameters are not finite, so they are not saved. Go back to the last checkpoint.")

    def restart_seed(self) -> int:
        """The seed of the environments after a checkpoint, from the state of training."""
        return checkpoints.seed_from(th.default_generator)

    # Saving.

    def _excluded_save_params(self) -> list[str]:
        # `_setup_model` makes the schedule from `learning_rate`.
        excluded = [*super()._excluded_save_params(), "offline_buffer", "run", "_just_read", "lr_schedule"]
        # A name or path can be read again; arrays are not saved with the model.
        return excluded if isinstance(self.dataset, str | pathlib.PurePath) else [*excluded, "dataset"]

    def save(
        self,
        path: str | pathlib.Path | io.BufferedIOBase,
        exclude: Iterable[str] | None = None,
        include: Iterable[str] | None = None,
    ) -> None:
        """
        As in Stable-Baselines3, but files are written atomically, and settings are plain data instead of pickles. Objects
        that are not plain data, such as functions, are pickled, with a warning.

        :param path: A path (``.zip`` is added if it has no suffix), or an open file
        :param exclude: Names of attributes to leave out
        :param include: Names of attributes that are usually left out
        """
        if not isinstance(path, (str, pathlib.Path)):
            return save_model(self, path, exclude or (), include or ())  # type: ignore[arg-type]
        with atomic_write(file_to_write(path, "zip")) as file:
            save_model(self, file, exclude or (), include or ())

    @classmethod
    def load(
        cls: type[SelfOffline],
        path: Any,
        env: GymEnv | None = None,
        device: th.device | str = "auto",
        custom_objects: dict[str, Any] | None = None,
        print_system_info: bool = False,
        force_reset: bool = True,
        *,
        trusted: bool = False,
        **kwargs: Any,
    ) -> SelfOffline:
        """
        As in Stable-Baselines3, but no pickle is read unless the file is trusted.

        :param path: A path, with or without its suffix, or an open file
        :param env: Environment; None: the model can predict, but not train
        :param device: ``"cpu"``, ``"cuda"`` or ``"auto"``
        :param custom_objects: Values that replace saved ones, by the names of the attributes
        :param print_system_info: Whether to print the versions of the saved model and the current ones
        :param force_reset: Whether the environment is reset before training
        :param trusted: Whether pickles in the file are read, which runs any code that they contain. Files of version 0.1 have
            pickles, and files with objects that are not plain data, such as a function.
        :param kwargs: Arguments of the constructor, which replace the saved ones
        :return: The model
        :raises FileNotFoundError: If there is no such file.
        :raises TypeError: If there is no such argument, or it has another type.
        :raises ValueError: If it holds something else, is damaged, has pickles that are not trusted, or does not fit the
            environment.
        """
        check_device(device)
        if is_path(path):
            path = file_to_read(path, "zip", "saved model")
        elif not hasattr(path, "read"):
            raise TypeError(f"`path` is {path!r}; it must be a path or an open file.")
        if env is not None:
            env = as_environment(env)
        settings = read_settings(path)
        require_own_model(cls, path, settings)
        kwargs = check_load_arguments(cls, kwargs, settings)
        values = unpack_settings(path, settings, policy_classes(cls), custom_objects, trusted, kwargs)
        require_own_policy(cls, path, values.get("policy_class"))
        replaced = {name: values[name] for name in custom_objects or {} if name in values}
        check_changes(cls, {name: values[name] for name in values.keys() - replaced.keys()}, {**replaced, **kwargs})
        with load_errors(cls, path):
            if env is not None and values.get("spaces_from_data"):
                env = WithinSpaces(cls._wrap_env(env), values["observation_space"], values["action_space"])
            # All settings are replaced by the values that were read above, so that the base class unpickles nothing.
            model = super().load(path, env, device, values, print_system_info, force_reset, **kwargs)
        if env is not None:
            model._compare_normalization()
        return model

    @classmethod
    def resume(
        cls: type[SelfOffline],
        folder: str | pathlib.Path,
        env: GymEnv | str | None = None,
        dataset: Any = None,
        device: th.device | str = "auto",
        trusted: bool = False,
        **kwargs: Any,
    ) -> SelfOffline:
        """
        Go on with a run from the last checkpoint that a ``TrainingCheckpoint`` wrote.

        Make the environment, and the callbacks, as for the run that was killed; then call ``learn`` with the same arguments
        as then. That first ``learn`` is the rest of the call that was interrupted: it trains to the same end, and callbacks
        have the state that they had. On a CPU the parameters become those of a run that was not interrupted, bit for bit.

        :param folder: The folder that was given to ``TrainingCheckpoint``
        :param env: The environment, wrapped as it was, or its id; None where the run had none
        :param dataset: The data, as the argument of the constructor. Not needed where that was a name or a path.
        :param device: ``"cpu"``, ``"cuda"`` or ``"auto"``
        :param trusted: Whether pickles in the checkpoint are read, as for ``load``
        :param kwargs: Attributes that replace the saved ones, and ``custom_objects``, as for ``load``
        :return: The model
        :raises FileNotFoundError: If there is no complete checkpoint.
        :raises ValueError: If the checkpoint is damaged, or environment or data are not what they were.
        """
        return checkpoints.resume(cls, folder, env, dataset, trusted, {"device": device, **kwargs})
