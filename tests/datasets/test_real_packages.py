"""Data that other packages wrote: files in ``written`` (see ``written/write.py``), and of packages that are installed."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from dialects import joined, random_episodes, rlds_steps
from reference import check_everything

from sb3_flow.datasets import OfflineDataset, load_dataset

WRITTEN = Path(__file__).parent / "written"
SEED = 7


@pytest.fixture(autouse=True)
def warnings_are_errors() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def unpacked(name: str, folder: Path) -> Path:
    with zipfile.ZipFile(WRITTEN / f"{name}.zip") as archive:
        archive.extractall(folder)
    return folder


def test_d3rlpy() -> None:
    pytest.importorskip("h5py")
    # d3rlpy drops episodes that are cut after one step: they have no transition.
    episodes = [episode for episode in random_episodes(SEED) if len(episode) > 1 or episode.terminations[-1]]
    check_everything(load_dataset(WRITTEN / "d3rlpy.h5"), episodes, last_observation=False)


def test_robomimic(tmp_path: Path) -> None:
    """All of the file, and one of the parts into which robomimic split it, as robomimic reads that."""
    pytest.importorskip("h5py")
    path = unpacked("robomimic", tmp_path) / "robomimic.hdf5"
    check_everything(load_dataset(path), random_episodes(SEED), last_observation=True)
    train = load_dataset(f"{path}#train")
    expected = np.load(WRITTEN / "robomimic_as_read_by_robomimic.npz")
    assert train.n_trajectories == 6 and isinstance(train.observations, dict) and isinstance(train.next_observations, dict)
    ours = [train.actions, train.observations["eef"], train.next_observations["eef"], train.rewards, train.terminations]
    theirs = [expected[name] for name in ("actions", "obs", "next_obs", "rewards", "dones")]
    rows, wanted = (np.concatenate([np.reshape(part, (16, -1)) for part in parts], axis=1) for parts in (ours, theirs))
    np.testing.assert_allclose(rows[np.lexsort(rows.T)], wanted[np.lexsort(wanted.T)], rtol=1e-6)


@pytest.mark.parametrize("name", ["lerobot", "lerobot_0.4.4"])
def test_lerobot(name: str, tmp_path: Path) -> None:
    """lerobot stores features of shape (1,) as scalars, and images in the parquet file where they are no videos."""
    for package in ("pyarrow", "PIL"):
        pytest.importorskip(package)
    folder = unpacked(name, tmp_path)
    episodes = random_episodes(SEED)
    check_everything(load_dataset(f"{folder}#agent_pos"), episodes, last_observation=False)
    data = load_dataset(folder)
    assert isinstance(data.observations, dict)
    assert {key: part.shape[1:] for key, part in data.observations.items()} == {
        "agent_pos": (3,),
        "gripper": (1,),
        "pixels_front": (8, 8, 3),
    }
    numbers = np.arange(sum(map(len, episodes)))
    np.testing.assert_array_equal(data.observations["gripper"][:, 0], numbers)
    np.testing.assert_array_equal(
        data.observations["pixels_front"], np.broadcast_to(numbers[:, None, None, None], (25, 8, 8, 3))
    )


class Walk(gym.Env[np.ndarray, np.ndarray]):
    """Follows random episodes, whatever the actions."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (3,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (2,), np.float32)

    def __init__(self) -> None:
        self.episodes = iter(random_episodes(SEED))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.episode, self.step_number = next(self.episodes), 0
        return self.episode.observations[0], {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        i = self.step_number
        self.step_number += 1
        ended, last = bool(self.episode.terminations[i]), self.step_number == len(self.episode)
        return self.episode.observations[i + 1], float(self.episode.rewards[i]), ended, last and not ended, {}


def test_stable_baselines3_from_an_environment() -> None:
    """SB3's own replay buffer, filled by SB3 from a vectorized environment with time limits."""
    from stable_baselines3.common.buffers import ReplayBuffer
    from stable_baselines3.common.vec_env import DummyVecEnv

    episodes = random_episodes(SEED)
    # One reset more than there are episodes, because a vectorized environment begins anew at once.
    monkey = Walk()
    monkey.episodes = iter([*episodes, episodes[0]])
    env = DummyVecEnv([lambda: monkey])
    buffer = ReplayBuffer(100, env.observation_space, env.action_space, device="cpu")
    observation = env.reset()
    for action in joined(episodes)["actions"]:
        following, reward, done, infos = env.step(action[None])
        successor = following.copy()
        if done[0]:
            successor[0] = infos[0]["terminal_observation"]
        buffer.add(observation, successor, action[None], reward, done, infos)
        observation = following
    data = OfflineDataset.from_replay_buffer(buffer, lambda actions: actions)
    check_everything(data, episodes, last_observation=True)


def test_tensorflow_datasets(tmp_path: Path) -> None:
    """Episodes in the RLDS layout, written by TensorFlow Datasets, which shuffles them."""
    tfds = pytest.importorskip("tensorflow_datasets")
    tf = pytest.importorskip("tensorflow")
    episodes = random_episodes(SEED)
    step = {
        "observation": tfds.features.Tensor(shape=(3,), dtype=tf.float32),
        "action": tfds.features.Tensor(shape=(2,), dtype=tf.float32),
        **dict.fromkeys(("reward", "discount"), tf.float32),
        **dict.fromkeys(("is_first", "is_last", "is_terminal"), tf.bool),
    }

    class Walks(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        @classmethod
        def get_metadata(cls) -> Any:
            return tfds.core.dataset_metadata.DatasetMetadata(description="", citation="", tags=[])

        def _info(self) -> Any:
            features = tfds.features.FeaturesDict({"steps": tfds.features.Dataset(step)})
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, manager: Any) -> Any:
            return {"train": self._generate_examples()}

        def _generate_examples(self) -> Any:
            for number, episode in enumerate(episodes):
                columns = rlds_steps([episode], tmp_path)
                rows = range(len(columns["action"]))
                yield number, {"steps": [{name: column[row] for name, column in columns.items()} for row in rows]}

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        builder = Walks(data_dir=str(tmp_path))
        builder.download_and_prepare()
    first = {tuple(episode.observations[0].tolist()): episode for episode in episodes}
    for source in (builder.data_dir, builder.as_dataset(split="train", shuffle_files=False)):
        data = load_dataset(source)
        starts = np.append(True, data.final_states[:-1])
        in_their_order = [first[tuple(row.tolist())] for row in data.observations[starts]]
        check_everything(data, in_their_order, last_observation=True)
