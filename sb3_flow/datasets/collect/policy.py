"""Collection with a trained model into a Minari dataset."""

from __future__ import annotations

import importlib
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.utils import check_for_correct_spaces, set_random_seed
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_flow.common.data.no_environment import WithinSpaces
from sb3_flow.common.data.statistics import normalizes
from sb3_flow.common.environments import register_environment
from sb3_flow.common.lock import locked
from sb3_flow.common.offline_algorithm import OfflineAlgorithm
from sb3_flow.common.optional import require
from sb3_flow.common.progress import progress_bar
from sb3_flow.common.warn import warn
from sb3_flow.datasets.registry import minari_directory, own_directory

#: Environment variable with Minari's folder.
MINARI_VARIABLE = "MINARI_DATASETS_PATH"
#: Packages that are searched for an algorithm, in this order.
ALGORITHM_PACKAGES = ("stable_baselines3", "sb3_contrib", "sb3_flow")


def collect_with_policy(
    env_id: str,
    policy: str | os.PathLike[str] | BaseAlgorithm,
    transitions: int,
    name: str,
    algo: str | None = None,
    seed: int = 0,
    deterministic: bool = False,
    vec_normalize: str | os.PathLike[str] | None = None,
    progress: bool = True,
    trusted: bool = False,
) -> str:
    """
    Collect transitions with a trained model, and store them as a Minari dataset on this machine.

    The last episode is truncated when the number of transitions is reached.

    :param env_id: Id of the environment
    :param policy: A saved model (``.zip``), or a model
    :param transitions: Number of transitions
    :param name: Id of the new dataset, ``"namespace/name-v0"``
    :param algo: Name of the model's class (case-insensitive), for instance ``"sac"``; required for a saved model
    :param seed: Seed of the environment and of the model's sampling
    :param deterministic: Whether the model acts deterministically
    :param vec_normalize: Saved statistics of the ``VecNormalize`` that the model was trained with; None: those of its
        environment, if it has one. The dataset has the observations without normalization.
    :param progress: Whether to show a progress bar
    :param trusted: Whether pickles are read, which runs any code that they contain. Models of Stable-Baselines3 and the
        statistics of ``VecNormalize`` are or contain pickles.
    :return: Name of the dataset for ``dataset=``, ``"minari:namespace/name-v0"``
    :raises ValueError: If the algorithm is unknown, the dataset exists, a file has pickles that are not trusted, or the model
        was trained with other spaces or other normalization.
    :raises ImportError: If Minari is not installed.
    """
    require("minari", "datasets", "Collecting with a trained model")
    if transitions < 1:
        raise ValueError(f"transitions is {transitions}; expected at least 1.")
    with locked(own_directory() / f".minari-{name.replace('/', '-')}.lock", f"minari:{name}"):
        folder = _new_folder(name)
        _collect(env_id, policy, transitions, folder, name, algo, seed, deterministic, vec_normalize, progress, trusted)
    return f"minari:{name}"


def _collect(
    env_id: str,
    policy: str | os.PathLike[str] | BaseAlgorithm,
    transitions: int,
    folder: Path,
    name: str,
    algo: str | None,
    seed: int,
    deterministic: bool,
    vec_normalize: str | os.PathLike[str] | None,
    progress: bool,
    trusted: bool,
) -> None:
    minari: Any = require("minari", "datasets", "Collecting with a trained model")
    episode_buffer = require("minari.data_collector", "datasets", "Collecting with a trained model").EpisodeBuffer
    register_environment(env_id)
    set_random_seed(seed)
    env = gym.make(env_id)
    environment = _recoverable(env)
    model = policy if isinstance(policy, BaseAlgorithm) else _load_model(Path(policy), algo, trusted)
    statistics: VecNormalize | None = None
    if vec_normalize is not None:
        _require_trust(trusted, vec_normalize, "a file of `VecNormalize.save`")
        statistics = VecNormalize.load(os.fspath(vec_normalize), DummyVecEnv([lambda: gym.make(env_id)]))
    elif model.env is not None:
        statistics = model.get_vec_normalize_env()
    _check_model(model, env, statistics)

    buffers: list[Any] = []
    done = 0
    bar = progress_bar(transitions, desc=name, unit="step", disable=not progress)
    with bar:
        while done < transitions:
            index = len(buffers)
            episode_seed = int(np.random.SeedSequence((seed, index)).generate_state(1)[0])
            episode = _act(env, model, statistics, episode_seed, transitions - done, deterministic)
            # Without infos: Minari's collector needs JAX for these.
            buffers.append(episode_buffer(id=index, seed=episode_seed, infos={}, **episode))
            done += len(episode["rewards"])
            bar.update(len(episode["rewards"]))
    algorithm = type(model).__name__
    with _hidden_root(folder, name), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Minari asks for an author and a link, which local data does not need.
        minari.create_dataset_from_buffers(
            name,
            buffers,
            **environment,
            algorithm_name=algorithm,
            description=f"{algorithm} in {env_id}",
            jpeg_encoding=False,  # images as the model saw them
        )
    env.close()


@contextmanager
def _hidden_root(folder: Path, name: str) -> Iterator[None]:
    """
    Context manager in which Minari writes to a hidden folder, from which the complete dataset is moved to its folder.

    With an incomplete dataset, Minari could not list the others. It ignores hidden folders.
    """
    namespaces: Any = require("minari.namespace", "datasets", "Collecting with a trained model")
    root, before = minari_directory(), os.environ.get(MINARI_VARIABLE)
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=".unfinished-") as hidden:
        os.environ[MINARI_VARIABLE] = hidden
        try:
            yield
        finally:
            os.environ.pop(MINARI_VARIABLE)
            if before is not None:
                os.environ[MINARI_VARIABLE] = before
        namespace = name.rpartition("/")[0]
        if namespace and namespace not in namespaces.list_local_namespaces():
            namespaces.create_namespace(namespace)
        folder.parent.mkdir(parents=True, exist_ok=True)
        (Path(hidden) / name).rename(folder)


def _new_folder(name: str) -> Path:
    """Folder of a new Minari dataset. Its name must be valid, and it must not exist."""
    parse = require("minari.dataset.minari_dataset", "datasets", "Collecting with a trained model").parse_dataset_id
    try:
        parse(name)
    except (ValueError, TypeError) as error:  # a name without a version: Minari parses a missing version
        raise ValueError(f"{name!r} is no name for a Minari dataset; expected NAMESPACE/NAME-v0, with a version.") from error
    folder = minari_directory() / name
    if folder.exists():
        raise ValueError(
            f"The dataset minari:{name} exists; choose another name, or `minari delete {name}` (or remove the folder "
            f"{folder}, if Minari does not know it)."
        )
    return folder


def _recoverable(env: gym.Env[Any, Any]) -> dict[str, Any]:
    """Arguments for Minari about the environment: itself, or its spaces if its specification cannot be written as JSON."""
    serialize = require("minari.serialization", "datasets", "Collecting with a trained model").serialize_space
    for space in (env.observation_space, env.action_space):
        try:
            serialize(space)
        except NotImplementedError as error:
            raise ValueError(f"Minari cannot store what is in {space} ({error}).") from error
    try:
        assert env.spec is not None
        env.spec.to_json()
    except (ValueError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:120]
        warn(
            f"The dataset has the spaces of {env.spec.id if env.spec else env}, but not its specification, which cannot be "
            f"written down ({reason}): `recover_environment` will not work."
        )
        return {"env": None, "observation_space": env.observation_space, "action_space": env.action_space}
    return {"env": env}


def _check_model(model: BaseAlgorithm, env: gym.Env[Any, Any], statistics: VecNormalize | None) -> None:
    """
    Check that a model is for an environment, and is given the normalization that it was trained with.

    :param model: The model
    :param env: The environment
    :param statistics: The normalization; None: there is none
    :raises ValueError: If it was trained with other spaces, or with other normalization.
    """
    wrapped = type(model)._wrap_env(env, 0, monitor_wrapper=False)
    try:
        if getattr(model, "spaces_from_data", False):
            WithinSpaces(wrapped, model.observation_space, model.action_space)  # type: ignore[arg-type]
        else:
            check_for_correct_spaces(wrapped, model.observation_space, model.action_space)
    except ValueError as error:
        name = env.spec.id if env.spec else env
        raise ValueError(f"The model is for another environment than {name}. {str(error).rstrip('.')}.") from error
    trained = getattr(model, "trained_normalized", None)
    if trained is not None and trained != normalizes(statistics):
        raise ValueError(
            "The model was trained with `VecNormalize`: pass its statistics, `vec_normalize` (--vec-normalize FILE)."
            if trained
            else "The model was trained without `VecNormalize`: leave out `vec_normalize` (--vec-normalize)."
        )


def _act(
    env: gym.Env[Any, Any],
    model: BaseAlgorithm,
    statistics: VecNormalize | None,
    seed: int,
    limit: int,
    deterministic: bool,
) -> dict[str, Any]:
    observation, _ = env.reset(seed=seed)
    observations: list[Any] = [observation]
    actions: list[Any] = []
    rewards: list[float] = []
    terminations: list[bool] = []
    truncations: list[bool] = []
    state: Any = None
    episode_start = np.ones(1, dtype=bool)
    while not (terminations and (terminations[-1] or truncations[-1])):
        seen = observation if statistics is None else statistics.normalize_obs(observation)
        action, state = model.predict(seen, state, episode_start, deterministic)
        episode_start = np.zeros(1, dtype=bool)
        observation, reward, terminated, truncated, _ = env.step(action)
        observations.append(observation)
        actions.append(action)
        rewards.append(float(reward))
        terminations.append(bool(terminated))
        truncations.append(bool(truncated) or (len(rewards) == limit and not terminated))
    return {
        "observations": _stack(observations),
        "actions": np.array(actions),
        "rewards": rewards,
        "terminations": terminations,
        "truncations": truncations,
    }


def _stack(observations: list[Any]) -> Any:
    if isinstance(observations[0], dict):
        return {key: _stack([observation[key] for observation in observations]) for key in observations[0]}
    return np.array(observations)


def _load_model(path: Path, algo: str | None, trusted: bool) -> BaseAlgorithm:
    if algo is None:
        raise ValueError(f"The file {path} does not say which algorithm it is of; name it (--algo sac).")
    path = path.expanduser()
    if not path.is_file() and not path.with_suffix(".zip").is_file():
        raise FileNotFoundError(f"{path}: there is no such model.")
    algorithm = find_algorithm(algo)
    if issubclass(algorithm, OfflineAlgorithm):
        return algorithm.load(path, trusted=trusted)
    _require_trust(trusted, path, f"a model of {algorithm.__name__}")
    return algorithm.load(path)


def _require_trust(trusted: bool, path: str | os.PathLike[str], what: str) -> None:
    if not trusted:
        raise ValueError(
            f"{os.fspath(path)} is refused: {what} has pickles, and reading a pickle runs any code that it contains. If you "
            "trust its source, pass `trusted=True` (`--trusted` on the command line)."
        )


def find_algorithm(name: str) -> type[BaseAlgorithm]:
    """
    Find an algorithm by its name (case-insensitive).

    :param name: For instance ``"sac"``, ``"tqc"`` or ``"fql"``
    :return: The class
    :raises ValueError: If no installed package has it; the message lists the known names.
    """
    known: dict[str, type[BaseAlgorithm]] = {}
    for package in ALGORITHM_PACKAGES:
        try:
            module = importlib.import_module(package)
        except ModuleNotFoundError:
            continue  # sb3_contrib is optional
        for key in dir(module):
            value = getattr(module, key)
            if isinstance(value, type) and issubclass(value, BaseAlgorithm):
                known.setdefault(key.lower(), value)
    if name.lower() not in known:
        raise ValueError(f"Unknown algorithm {name!r}; known: {', '.join(sorted(known))}.")
    return known[name.lower()]
