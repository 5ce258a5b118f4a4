"""
Random episodes, and what writes them in each dialect.

A writer takes episodes and an empty folder, and returns what ``dataset=`` is given. It is written from the documentation of
the package whose dialect it is; ``test_real_packages.py`` has files that the packages wrote themselves.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Arrays = dict[str, Any]


@dataclass
class Episode:
    """
    :param observations: ``(L + 1, 3)``, the last one is what followed the last action
    :param actions: ``(L, 2)`` in [-1, 1]
    :param rewards: ``(L,)``
    :param terminations: ``(L,)`` of bool: the task ended here
    """

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    terminations: np.ndarray

    def __len__(self) -> int:
        return len(self.actions)

    def without_last(self) -> Episode:
        return Episode(self.observations[:-1], self.actions[:-1], self.rewards[:-1], self.terminations[:-1])


def random_episodes(seed: int, goes_on: bool = False) -> list[Episode]:
    """
    Episodes of 1 to 8 steps; some end with the end of the task, others were cut. If ``goes_on``, tasks end earlier, too.
    """
    rng = np.random.default_rng(seed)
    episodes = []
    for number in range(int(rng.integers(2, 9))):
        length = int(rng.integers(1, 9))
        terminations = np.zeros(length, dtype=bool)
        if goes_on:
            terminations = rng.random(length) < 0.3
        terminations[-1] = [True, False][number] if number < 2 else rng.random() < 0.5
        episodes.append(
            Episode(
                rng.normal(size=(length + 1, 3)).astype(np.float32),
                rng.uniform(-1, 1, (length, 2)).astype(np.float32),
                rng.normal(size=length).astype(np.float32),
                terminations,
            )
        )
    return episodes


@dataclass
class Dialect:
    """
    What a dialect can say.

    :param write: Writes episodes into a folder
    :param last_observation: Whether it holds what followed the last action of an episode that was cut
    :param rewards: Whether it has rewards and ends of tasks
    :param goes_on: Whether an episode may go on after the end of the task
    :param last_action: Whether it has the last action of an episode that was cut
    :param needs: Packages without which it cannot be written or read
    """

    write: Callable[[list[Episode], Path], Any]
    last_observation: bool = True
    rewards: bool = True
    goes_on: bool = False
    last_action: bool = True
    needs: tuple[str, ...] = ()


def joined(episodes: list[Episode]) -> Arrays:
    """All steps, one after the other, with whatever a dialect may pick from."""
    lengths = [len(episode) for episode in episodes]
    last = np.concatenate([np.arange(length) == length - 1 for length in lengths])
    terminations = np.concatenate([episode.terminations for episode in episodes])
    return {
        "observations": np.concatenate([episode.observations[:-1] for episode in episodes]),
        "next_observations": np.concatenate([episode.observations[1:] for episode in episodes]),
        "actions": np.concatenate([episode.actions for episode in episodes]),
        "rewards": np.concatenate([episode.rewards for episode in episodes]),
        "terminations": terminations,
        "truncations": last & ~terminations,
        "last": last,
        "first": np.append(True, last[:-1]),
        "lengths": np.array(lengths),
        "episode": np.repeat(np.arange(len(lengths)), lengths),
        "step": np.concatenate([np.arange(length) for length in lengths]),
    }


def states(episodes: list[Episode], padding: float = 0.5) -> Arrays:
    """One row a state: after the steps of each episode comes its last observation, with an action that was never taken."""

    def longer(column: np.ndarray, value: float) -> np.ndarray:
        return np.concatenate([column, np.full((1, *column.shape[1:]), value, dtype=column.dtype)])

    lengths = [len(episode) + 1 for episode in episodes]
    return {
        "observations": np.concatenate([episode.observations for episode in episodes]),
        "actions": np.concatenate([longer(episode.actions, padding) for episode in episodes]),
        "rewards": np.concatenate([longer(episode.rewards, 0) for episode in episodes]),
        "terminations": np.concatenate([longer(episode.terminations, 0) for episode in episodes]),
        "last": np.concatenate([np.arange(length) == length - 1 for length in lengths]),
        "first": np.concatenate([np.arange(length) == 0 for length in lengths]),
        "lengths": np.array(lengths),
    }


def pick(columns: Arrays, **names: str) -> Arrays:
    """Observations, actions and rewards, and other columns under the names of a dialect; ``not_x`` means its contrary."""
    data = {name: columns[name] for name in ("observations", "actions", "rewards")}
    for name, column in names.items():
        data[name] = ~columns[column[4:]] if column.startswith("not_") else columns[column]
    return data


DIALECTS: dict[str, Dialect] = {}


def dialect(**abilities: Any) -> Callable[[Callable[[list[Episode], Path], Any]], Callable[[list[Episode], Path], Any]]:
    def register(write: Callable[[list[Episode], Path], Any]) -> Callable[[list[Episode], Path], Any]:
        DIALECTS[write.__name__] = Dialect(write, **abilities)
        return write

    return register


# Dictionaries.


@dialect()
def gymnasium(episodes: list[Episode], folder: Path) -> Any:
    names = ("next_observations", "terminations", "truncations")
    return pick(joined(episodes), **{name: name for name in names})


@dialect(last_observation=False)
def gymnasium_without_successors(episodes: list[Episode], folder: Path) -> Any:
    return pick(joined(episodes), terminateds="terminations", truncateds="truncations")


@dialect(last_observation=False)
def d4rl(episodes: list[Episode], folder: Path) -> Any:
    data = pick(joined(episodes), terminals="terminations", timeouts="truncations")
    return data | {"infos/qpos": np.zeros((len(data["actions"]), 4)), "metadata/algorithm": np.array([b"SAC"])}


@dialect(last_action=False, last_observation=False)
def d4rl_qlearning(episodes: list[Episode], folder: Path) -> Any:
    """``d4rl.qlearning_dataset``: the steps at which an episode was cut are left out, and nothing marks the place."""
    kept = [episode if episode.terminations[-1] else episode.without_last() for episode in episodes]
    return pick(
        joined([episode for episode in kept if len(episode)]), next_observations="next_observations", terminals="terminations"
    )


@dialect()
def corl(episodes: list[Episode], folder: Path) -> Any:
    return pick(joined(episodes), next_observations="next_observations", terminals="terminations")


@dialect(goes_on=True)
def iql(episodes: list[Episode], folder: Path) -> Any:
    return pick(joined(episodes), next_observations="next_observations", masks="not_terminations", dones_float="last")


@dialect(goes_on=True)
def ogbench(episodes: list[Episode], folder: Path) -> Any:
    return pick(joined(episodes), next_observations="next_observations", masks="not_terminations", terminals="last")


@dialect(goes_on=True)
def ogbench_compact(episodes: list[Episode], folder: Path) -> Any:
    """``ogbench.make_env_and_datasets(..., compact_dataset=True)``: last transitions and last observations are `terminals`."""
    data = pick(states(episodes), masks="not_terminations", valids="not_last")
    return data | {"terminals": ~data["valids"] | np.append(~data["valids"][1:], True)}


@dialect(rewards=False)
def ogbench_file(episodes: list[Episode], folder: Path) -> Any:
    data = pick(states(episodes), terminals="last")
    del data["rewards"]
    np.savez(folder / "log.npz", **data, qpos=np.zeros((len(data["actions"]), 5)), qvel=np.zeros((len(data["actions"]), 4)))
    return folder / "log.npz"


@dialect()
def rlds_steps(episodes: list[Episode], folder: Path) -> Any:
    """The steps of all episodes in one table. The last one of each holds only the last observation."""
    columns = states(episodes)
    ended = np.append(False, columns["terminations"][:-1]) & columns["last"]
    return {
        "observation": columns["observations"],
        "action": columns["actions"],
        "reward": columns["rewards"],
        "discount": np.ones(len(ended), dtype=np.float32),
        "is_first": columns["first"],
        "is_last": columns["last"],
        "is_terminal": ended,
    }


@dialect()
def rlds_episodes(episodes: list[Episode], folder: Path) -> Any:
    """A list of episodes as TensorFlow Datasets gives them: each has ``steps``."""
    listed = []
    for episode in episodes:
        columns = rlds_steps([episode], folder)
        rows = range(len(columns["action"]))
        listed.append({"steps": [{name: column[row] for name, column in columns.items()} for row in rows]})
    return listed


@dialect()
def exorl(episodes: list[Episode], folder: Path) -> Any:
    """Files of single episodes: the action of a row led to its observation, and the first one is made up."""
    for number, episode in enumerate(episodes):
        first = {"action": np.zeros((1, 2), np.float32), "reward": np.zeros((1, 1), np.float32), "discount": np.ones((1, 1))}
        columns = {
            "action": episode.actions,
            "reward": episode.rewards[:, None],
            "discount": 1.0 - episode.terminations[:, None],
        }
        shifted = {name: np.concatenate([first[name], column]) for name, column in columns.items()}
        np.savez(
            folder / f"episode_{number}.npz",
            observation=episode.observations,
            physics=np.zeros((len(episode) + 1, 5)),
            **shifted,
        )
    return str(folder / "episode_*.npz")


@dialect()
def stable_baselines3(episodes: list[Episode], folder: Path) -> Any:
    return pick(joined(episodes), next_observations="next_observations", dones="last", timeouts="truncations")


@dialect()
def stable_baselines3_buffer(episodes: list[Episode], folder: Path) -> Any:
    from gymnasium import spaces
    from stable_baselines3.common.buffers import ReplayBuffer

    columns = joined(episodes)
    space = spaces.Box(-np.inf, np.inf, (3,), np.float32)
    buffer = ReplayBuffer(len(columns["actions"]), space, spaces.Box(-1, 1, (2,), np.float32), device="cpu")
    for row in range(len(columns["actions"])):
        now, then, action = (columns[name][row][None] for name in ("observations", "next_observations", "actions"))
        info = {"TimeLimit.truncated": bool(columns["truncations"][row])}
        buffer.add(now, then, action, columns["rewards"][row][None], columns["last"][row][None], [info])
    return buffer


@dialect(last_observation=False)
def d3rlpy_arrays(episodes: list[Episode], folder: Path) -> Any:
    return pick(joined(episodes), terminals="terminations", timeouts="truncations") | {"discrete_action": np.array(0)}


@dialect(last_observation=False)
def numbers_of_episodes(episodes: list[Episode], folder: Path) -> Any:
    return pick(joined(episodes), terminations="terminations", traj_ids="episode")


@dialect(last_observation=False)
def first_rows(episodes: list[Episode], folder: Path) -> Any:
    return pick(joined(episodes), terminations="terminations", episode_starts="first")


@dialect(last_observation=False)
def lengths(episodes: list[Episode], folder: Path) -> Any:
    return pick(joined(episodes), dones="terminations", episode_lengths="lengths")


@dialect(last_observation=False)
def counters(episodes: list[Episode], folder: Path) -> Any:
    return pick(joined(episodes), terminals="terminations", timesteps="step")


@dialect()
def list_of_episodes(episodes: list[Episode], folder: Path) -> Any:
    """Each with one observation more than actions."""
    return [
        {
            "observations": episode.observations,
            "actions": episode.actions,
            "rewards": episode.rewards,
            "terminations": episode.terminations,
        }
        for episode in episodes
    ]


@dialect(last_observation=False)
def list_of_recordings(episodes: list[Episode], folder: Path) -> Any:
    return [pick(joined([episode]), terminations="terminations") for episode in episodes]


def in_parts(data: Arrays, field: str, first: str, second: str, mark: str = "/") -> Arrays:
    """The same data, its observations in two parts."""
    data = dict(data)
    whole = data.pop(field)
    return {**data, f"{field}{mark}{first}": whole[:, :2], f"{field}{mark}{second}": whole[:, 2:]}


@dialect()
def gymnasium_dictionary(episodes: list[Episode], folder: Path) -> Any:
    data = gymnasium(episodes, folder)
    for name in ("observations", "next_observations"):
        data[name] = {"arm": data[name][:, :2], "cube": data[name][:, 2:]}
    return data


@dialect()
def rlds_dictionary(episodes: list[Episode], folder: Path) -> Any:
    return in_parts(rlds_steps(episodes, folder), "observation", "arm", "cube")


# Files.


@dialect(last_observation=False)
def npz_dictionary(episodes: list[Episode], folder: Path) -> Any:
    np.savez(folder / "log.npz", **in_parts(first_rows(episodes, folder), "observations", "arm/joints", "cube"))
    return folder / "log.npz"


@dialect()
def npz(episodes: list[Episode], folder: Path) -> Any:
    infos = np.array([{"distance": 1.0}] * sum(map(len, episodes)), dtype=object)
    np.savez(folder / "log.npz", **gymnasium(episodes, folder), infos=infos)
    return folder / "log.npz"


@dialect(last_observation=False)
def npy_folder(episodes: list[Episode], folder: Path) -> Any:
    for name, column in gymnasium_without_successors(episodes, folder).items():
        np.save(folder / f"{name}.npy", column)
    return folder


@dialect()
def several_files(episodes: list[Episode], folder: Path) -> Any:
    for number, episode in enumerate(episodes):
        np.savez(folder / f"{number:03}.npz", **gymnasium([episode], folder))
    return str(folder / "*.npz")


def in_groups(path: Path, groups: dict[str, Arrays]) -> Path:
    """An HDF5 file with groups of arrays."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        for group, columns in groups.items():
            for name, column in columns.items():
                file[f"{group}/{name}"] = column
    return path


@dialect(last_observation=False, needs=("h5py",))
def d4rl_hdf5(episodes: list[Episode], folder: Path) -> Any:
    return in_groups(folder / "log.hdf5", {"/": d4rl(episodes, folder)})


@dialect(needs=("h5py",))
def robomimic(episodes: list[Episode], folder: Path) -> Any:
    demos = {}
    for number, episode in enumerate(episodes):
        demos[f"data/demo_{number}"] = {
            "obs/object": episode.observations[:-1, 2:],
            "obs/eef": episode.observations[:-1, :2],
            "next_obs/object": episode.observations[1:, 2:],
            "next_obs/eef": episode.observations[1:, :2],
            "actions": episode.actions,
            "rewards": episode.rewards,
            "dones": episode.terminations.astype(np.int64),
            "states": np.zeros((len(episode), 7)),
        }
    return in_groups(folder / "low_dim.hdf5", demos)


@dialect(needs=("h5py",))
def minari_file(episodes: list[Episode], folder: Path) -> Any:
    """The file in a Minari dataset: one observation more than actions."""
    groups = {
        f"episode_{number}": {**list_of_episodes([episode], folder)[0], "truncations": joined([episode])["truncations"]}
        for number, episode in enumerate(episodes)
    }
    return in_groups(folder / "main_data.hdf5", groups)


@dialect(needs=("minari", "h5py"))
def minari(episodes: list[Episode], folder: Path) -> Any:
    import minari as package
    from gymnasium import spaces
    from minari.data_collector import EpisodeBuffer

    buffers = [
        EpisodeBuffer(
            id=number,
            observations=list(episode.observations),
            actions=list(episode.actions),
            rewards=episode.rewards.tolist(),
            terminations=episode.terminations.tolist(),
            truncations=joined([episode])["truncations"].tolist(),
            infos={},
        )
        for number, episode in enumerate(episodes)
    ]
    package.create_dataset_from_buffers(
        "demo/random-v0",
        buffers,
        observation_space=spaces.Box(-np.inf, np.inf, (3,), np.float32),
        action_space=spaces.Box(-1, 1, (2,), np.float32),
    )
    return "minari:demo/random-v0"


@dialect(last_observation=False, needs=("h5py",))
def d3rlpy(episodes: list[Episode], folder: Path) -> Any:
    """``ReplayBuffer.dump``: columns numbered by episode."""
    columns: Arrays = {}
    for number, episode in enumerate(episodes):
        columns[f"observations_{number}"] = episode.observations[:-1]
        columns[f"actions_{number}"] = episode.actions
        columns[f"rewards_{number}"] = episode.rewards[:, None]
        columns[f"terminated_{number}"] = bool(episode.terminations[-1])
    return in_groups(folder / "buffer.h5", {"/": columns | {"version": "2.5"}})


def diffusion_policy(episodes: list[Episode], folder: Path, version: int) -> Any:
    zarr = pytest.importorskip("zarr")
    columns = joined(episodes)
    root = zarr.open_group(str(folder / "replay.zarr"), mode="w", zarr_format=version)
    data, meta = root.create_group("data"), root.create_group("meta")
    for group, name, column in (
        (data, "state", columns["observations"]),
        (data, "action", columns["actions"]),
        (meta, "episode_ends", np.cumsum(columns["lengths"])),
    ):
        group.create_array(name, data=column)
    return folder / "replay.zarr"


@dialect(last_observation=False, rewards=False, needs=("zarr",))
def diffusion_policy_2(episodes: list[Episode], folder: Path) -> Any:
    return diffusion_policy(episodes, folder, 2)


@dialect(last_observation=False, rewards=False, needs=("zarr",))
def diffusion_policy_3(episodes: list[Episode], folder: Path) -> Any:
    return diffusion_policy(episodes, folder, 3)


def lerobot_table(episodes: list[Episode], parts: bool = False) -> Any:
    """With observations in one vector, or in two parts of which one has a single number and is stored as such."""
    pa = pytest.importorskip("pyarrow")
    columns = joined(episodes)
    observations = columns["observations"]
    vectors = {"observation.state": pa.array(list(observations[:, :2] if parts else observations), pa.list_(pa.float32()))}
    return pa.table(
        {
            **vectors,
            **({"observation.environment_state": observations[:, 2]} if parts else {}),
            "action": pa.array(list(columns["actions"]), pa.list_(pa.float32())),
            "next.reward": columns["rewards"],
            "next.done": columns["terminations"],
            "episode_index": columns["episode"],
            "frame_index": columns["step"],
            "timestamp": (columns["step"] / 10).astype(np.float32),
            "index": np.arange(len(columns["step"])),
            "task_index": np.zeros(len(columns["step"]), dtype=np.int64),
        }
    )


@dialect(last_observation=False, needs=("pyarrow",))
def lerobot_2(episodes: list[Episode], folder: Path) -> Any:
    """Layout 2.1: a file for each episode, tasks in lines of JSON."""
    import pyarrow.parquet as pq

    (folder / "data" / "chunk-000").mkdir(parents=True)
    (folder / "meta").mkdir()
    (folder / "meta" / "info.json").write_text(json.dumps({"codebase_version": "v2.1", "fps": 10, "features": {}}))
    (folder / "meta" / "tasks.jsonl").write_text(json.dumps({"task_index": 0, "task": "walk"}) + "\n")
    table = lerobot_table(episodes)
    start = 0
    for number, episode in enumerate(episodes):
        path = folder / "data" / "chunk-000" / f"episode_{number:06}.parquet"
        pq.write_table(table.slice(start, len(episode)), path)
        start += len(episode)
    return folder


@dialect(last_observation=False, needs=("pyarrow",))
def lerobot_3(episodes: list[Episode], folder: Path) -> Any:
    """Layout 3.0: several episodes in a file; here with observations in two parts."""
    import pyarrow.parquet as pq

    (folder / "data" / "chunk-000").mkdir(parents=True)
    (folder / "meta").mkdir()
    (folder / "meta" / "info.json").write_text(json.dumps({"codebase_version": "v3.0", "fps": 10, "features": {}}))
    table = lerobot_table(episodes, parts=True)
    pq.write_table(table.slice(0, len(episodes[0])), folder / "data" / "chunk-000" / "file-000.parquet")
    pq.write_table(table.slice(len(episodes[0])), folder / "data" / "chunk-000" / "file-001.parquet")
    return folder


def frame(episodes: list[Episode]) -> Any:
    pd = pytest.importorskip("pandas")
    columns = joined(episodes)
    data = {f"obs_{i}": columns["observations"][:, i] for i in range(3)}
    data |= {f"action_{i}": columns["actions"][:, i] for i in range(2)}
    data |= {"reward": columns["rewards"], "terminated": columns["terminations"], "episode": columns["episode"]}
    return pd.DataFrame(data)


@dialect(last_observation=False, needs=("pandas",))
def pandas_frame(episodes: list[Episode], folder: Path) -> Any:
    return frame(episodes)


@dialect(last_observation=False, needs=("pandas", "pyarrow"))
def parquet(episodes: list[Episode], folder: Path) -> Any:
    frame(episodes).to_parquet(folder / "log.parquet")
    return folder / "log.parquet"


def kept(episodes: list[Episode], dialect: Dialect) -> list[Episode]:
    """What of the episodes a dialect can hold."""
    if not dialect.last_action:
        episodes = [episode if episode.terminations[-1] else episode.without_last() for episode in episodes]
    if not dialect.rewards:
        episodes = [
            replace(episode, terminations=np.zeros(len(episode), dtype=bool), rewards=np.zeros(len(episode), np.float32))
            for episode in episodes
        ]
    return [episode for episode in episodes if len(episode)]
