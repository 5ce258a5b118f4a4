"""Saving and loading as Stable-Baselines3 does, except that no file is seen half-written and every refusal says why."""

from __future__ import annotations

import io
import json
import pathlib
import pickle
from collections.abc import Iterable
from typing import Any, TypeVar

import torch as th
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.save_util import json_to_data, load_from_pkl
from stable_baselines3.common.type_aliases import GymEnv

from sb3_flow.common import checkpoints, compact
from sb3_flow.common.files import atomic_write, file_to_read, file_to_write, is_path, name_of, read_settings

SelfSaving = TypeVar("SelfSaving", bound="Saving")


class Saving(OffPolicyAlgorithm):
    """How the algorithms are saved, loaded and resumed."""

    def save(
        self,
        path: str | pathlib.Path | io.BufferedIOBase,
        exclude: Iterable[str] | None = None,
        include: Iterable[str] | None = None,
    ) -> None:
        if not isinstance(path, (str, pathlib.Path)):
            return super().save(path, exclude, include)
        with atomic_write(file_to_write(path, "zip")) as file:
            super().save(file, exclude, include)  # type: ignore[arg-type]

    def save_replay_buffer(self, path: str | pathlib.Path | io.BufferedIOBase) -> None:
        """
        Save what was collected online; the data set is no part of it.

        :param path: A path (``.pkl`` is added where it has no suffix), or an open file
        """
        if not isinstance(path, (str, pathlib.Path)):
            return compact.dump(self.replay_buffer, path)  # type: ignore[arg-type]
        with atomic_write(file_to_write(path, "pkl")) as file:
            compact.dump(self.replay_buffer, file)

    @classmethod
    def load(cls: type[SelfSaving], path: Any, env: GymEnv | None = None, *args: Any, **kwargs: Any) -> SelfSaving:
        if is_path(path):
            path = file_to_read(path, "zip", "saved model")
        _require_own_model(cls, path, read_settings(path), kwargs.get("custom_objects") or {})
        try:
            return super().load(path, env, *args, **kwargs)
        except ImportError as error:
            raise ValueError(
                f"{name_of(path)} needs what cannot be imported here ({error}). Install or import it, or replace what needs "
                "it by `custom_objects`."
            ) from error
        except (RuntimeError, KeyError, pickle.UnpicklingError, EOFError) as error:
            raise ValueError(
                f"{name_of(path)} does not fit {cls.__name__}: its parameters or settings are missing or of other shapes, "
                f"perhaps because another version saved it. {type(error).__name__}: {' '.join(str(error).split())}"
            ) from error
        except ValueError as error:
            hint = " Pass the environment that it was trained on, wrapped as it was." if "spaces do" in str(error) else ""
            raise ValueError(f"{name_of(path)} cannot be loaded. {str(error).rstrip('.')}.{hint}") from error

    def load_replay_buffer(self, path: Any, truncate_last_traj: bool = True) -> None:
        """
        Load what ``save_replay_buffer`` saved.

        :param path: A path, or an open file
        :param truncate_last_traj: Of no importance: the newest trajectories end where the environments are reset.
        :raises FileNotFoundError: If there is no such file.
        :raises ValueError: If it holds something else, or what was collected with other spaces.
        """
        if is_path(path):
            path = file_to_read(path, "pkl", "saved replay buffer")
        name, own = name_of(path), self.replay_buffer
        try:
            buffer = load_from_pkl(path, self.verbose)
        except Exception as error:  # damaged pickles can raise anything
            raise ValueError(
                f"{name} is no replay buffer, or it is damaged ({error}). Give a file that `save_replay_buffer` wrote."
            ) from error
        assert own is not None
        if not isinstance(buffer, type(own)):
            raise ValueError(
                f"{name} holds a {type(buffer).__module__}.{type(buffer).__qualname__}, but {type(self).__name__} collects "
                f"into its own {type(own).__name__}. Pass the replay buffer of another algorithm as `dataset`."
            )
        for what in ("observation_space", "action_space", "n_envs"):
            if getattr(buffer, what) != getattr(own, what):
                raise ValueError(
                    f"{name} was collected with another `{what}`: {getattr(buffer, what)}, and this model has "
                    f"{getattr(own, what)}. Pass it as `dataset` if only the environments are fewer or more."
                )
        buffer.device = self.device
        self.replay_buffer = buffer

    @classmethod
    def resume(
        cls: type[SelfSaving],
        folder: str | pathlib.Path,
        env: GymEnv | str,
        dataset: Any = None,
        device: th.device | str = "auto",
        **kwargs: Any,
    ) -> SelfSaving:
        """
        Go on with a run from the last checkpoint that a ``TrainingCheckpoint`` wrote.

        Make the environment, and the callbacks, as for the run that was killed; then call ``learn`` with the same arguments
        as then. That first ``learn`` is the rest of the call that was interrupted: it trains to the same end, and callbacks
        remember what they knew. On a CPU the parameters become those of a run that was not interrupted, bit for bit.

        :param folder: The folder that was given to ``TrainingCheckpoint``
        :param env: The environment, wrapped as it was, or its id
        :param dataset: The data, as the argument of the constructor. Not needed where that was a name or a path.
        :param device: ``"cpu"``, ``"cuda"`` or ``"auto"``
        :param kwargs: Attributes that replace the saved ones, as for ``load``
        :return: The model
        :raises FileNotFoundError: If there is no complete checkpoint.
        :raises ValueError: If the checkpoint is damaged, or environment or data are not what they were.
        """
        return checkpoints.resume(cls, folder, env, dataset, {"device": device, **kwargs})  # type: ignore[type-var]


def _require_own_model(cls: type[Saving], path: Any, settings: dict[str, Any], custom_objects: dict[str, Any]) -> None:
    """See that the file is of an algorithm whose policies this one has."""
    packed = settings.get("policy_class", {})
    module = packed.get("__module__", "unknown") if isinstance(packed, dict) else "unknown"
    advice = f"Load it with the class that saved it, and not with {cls.__name__}."
    if "n_offline_updates" not in settings:
        raise ValueError(f"{name_of(path)} was saved by an algorithm outside of sb3_flow (policy in {module}). {advice}")
    try:
        policy_class = json_to_data(json.dumps({"policy_class": packed}), custom_objects).get("policy_class")
    except ImportError:
        return  # `load` says what is missing
    if not isinstance(policy_class, type) or not issubclass(policy_class, tuple(cls.policy_aliases.values())):
        raise ValueError(f"{name_of(path)} was saved by another algorithm, or another version (policy in {module}). {advice}")
