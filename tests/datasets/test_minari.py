"""Reader of Minari's datasets, and collection with a trained model."""

import numpy as np
import pytest
from stable_baselines3 import SAC
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from sb3_flow import FQL
from sb3_flow.datasets import (
    DatasetError,
    OfflineDataset,
    collect_with_policy,
    load_dataset,
    local_datasets,
    recover_environment,
)

minari = pytest.importorskip("minari")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "sac.zip"
    SAC("MlpPolicy", "Pendulum-v1", learning_starts=10, buffer_size=100, seed=0).learn(20).save(path)
    return path


def test_collected_episodes_are_read_as_they_were(model):
    name = collect_with_policy("Pendulum-v1", model, 250, "demo/pendulum-v0", algo="SAC", progress=False, trusted=True)
    assert name == "minari:demo/pendulum-v0" and name in local_datasets()
    episodes = list(minari.load_dataset("demo/pendulum-v0").iterate_episodes())
    assert [len(episode.rewards) for episode in episodes] == [200, 50]
    assert episodes[1].truncations[-1]

    dataset = load_dataset(name)
    assert len(dataset) == 250 and dataset.n_trajectories == 2 and len(dataset.actions) == 252
    assert np.flatnonzero(~dataset.valids).tolist() == [200, 251]
    assert np.flatnonzero(dataset.ends).tolist() == [199, 250]
    assert dataset.observations.dtype == np.float32
    np.testing.assert_array_equal(dataset.observations[201:], episodes[1].observations)
    np.testing.assert_array_equal(dataset.actions[dataset.valids], np.concatenate([e.actions for e in episodes]))
    np.testing.assert_array_equal(dataset.rewards[:200], episodes[0].rewards.astype(np.float32))

    for source in ("demo/pendulum-v0", minari.load_dataset("demo/pendulum-v0")):
        np.testing.assert_array_equal(load_dataset(source).observations, dataset.observations)
    part = minari.load_dataset("demo/pendulum-v0").filter_episodes(lambda episode: len(episode.rewards) == 50)
    assert len(load_dataset(part)) == 50
    assert recover_environment(name).spec.id == "Pendulum-v1"


def test_the_seed_decides(model):
    observations = []
    for index, seed in enumerate((0, 0, 1)):
        name = f"demo/pendulum-v{index}"
        collect_with_policy("Pendulum-v1", model, 30, name, algo="sac", seed=seed, progress=False, trusted=True)
        observations.append(load_dataset(name).observations)
    np.testing.assert_array_equal(observations[0], observations[1])
    assert not np.array_equal(observations[0], observations[2])


def test_wrong_arguments(model, tmp_path):
    with pytest.raises(ValueError, match=r"Unknown algorithm 'nope'; known: .*sac"):
        collect_with_policy("Pendulum-v1", model, 10, "demo/a-v0", algo="nope")
    with pytest.raises(ValueError, match="--algo"):
        collect_with_policy("Pendulum-v1", model, 10, "demo/a-v0")
    with pytest.raises(FileNotFoundError, match="no such model"):
        collect_with_policy("Pendulum-v1", tmp_path / "none.zip", 10, "demo/a-v0", algo="sac")
    with pytest.raises(ValueError, match="transitions is 0"):
        collect_with_policy("Pendulum-v1", model, 0, "demo/a-v0", algo="sac")
    collect_with_policy("Pendulum-v1", model, 3, "demo/a-v0", algo="sac", progress=False, trusted=True)
    with pytest.raises(ValueError, match="exists"):
        collect_with_policy("Pendulum-v1", model, 3, "demo/a-v0", algo="sac", progress=False, trusted=True)


def test_pickles_need_trust(model, tmp_path):
    """Models of Stable-Baselines3 have pickles, ours have none; the statistics of ``VecNormalize`` are one."""
    with pytest.raises(ValueError, match=r"sac\.zip is refused: a model of SAC has pickles.*`trusted=True`"):
        collect_with_policy("Pendulum-v1", model, 3, "demo/a-v0", algo="sac", progress=False)
    FQL("FlowPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [8]}, device="cpu").save(tmp_path / "fql")
    statistics = tmp_path / "vecnormalize.pkl"
    VecNormalize(make_vec_env("Pendulum-v1")).save(str(statistics))
    options = {"algo": "fql", "progress": False, "vec_normalize": statistics}
    with pytest.raises(ValueError, match=r"vecnormalize\.pkl is refused: a file of `VecNormalize.save` has pickles"):
        collect_with_policy("Pendulum-v1", tmp_path / "fql", 3, "demo/a-v0", **options)
    assert collect_with_policy("Pendulum-v1", tmp_path / "fql", 3, "demo/a-v0", **options, trusted=True)
    assert collect_with_policy("Pendulum-v1", tmp_path / "fql", 3, "demo/b-v0", **options | {"vec_normalize": None})


def test_a_model_acts_on_normalized_observations(tmp_path):
    """A model with ``VecNormalize``; the dataset has the unnormalized observations of the environment."""
    model = FQL("FlowPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [8]}, device="cpu", seed=0)
    statistics = VecNormalize(make_vec_env("Pendulum-v1"))
    statistics.obs_rms.mean[:], statistics.obs_rms.var[:] = (0.5, -0.5, 2.0), (0.1, 0.2, 30.0)
    statistics.save(str(tmp_path / "vecnormalize.pkl"))
    options = {"deterministic": True, "progress": False, "trusted": True}
    name = collect_with_policy("Pendulum-v1", model, 5, "demo/a-v0", vec_normalize=tmp_path / "vecnormalize.pkl", **options)
    dataset = load_dataset(name)
    seen = dataset.observations[dataset.valids]
    assert np.abs(np.hypot(seen[:, 0], seen[:, 1]) - 1).max() < 1e-5  # cosine and sine of the environment
    normalized, raw = (model.predict(rows, deterministic=True)[0] for rows in (statistics.normalize_obs(seen), seen))
    np.testing.assert_allclose(dataset.actions[dataset.valids], normalized, rtol=1e-4, atol=1e-6)
    assert np.abs(normalized - raw).max() > 1e-2
    own = FQL("FlowPolicy", statistics, policy_kwargs={"net_arch": [8]}, device="cpu", seed=0)
    name = collect_with_policy("Pendulum-v1", own, 5, "demo/b-v0", **options)
    np.testing.assert_allclose(load_dataset(name).actions, dataset.actions, rtol=1e-4, atol=1e-6)


def test_a_model_acts_as_it_was_trained(tmp_path):
    """Without its normalization, or in another environment, it would act at random, and nothing in the data would say so."""
    small = {"policy_kwargs": {"net_arch": [8]}, "batch_size": 8, "learning_starts": 5, "device": "cpu", "seed": 0}
    env = VecNormalize(make_vec_env("Pendulum-v1"))
    normalized = FQL("FlowPolicy", env, **small).learn(10)
    raw = FQL("FlowPolicy", "Pendulum-v1", **small).learn(10)
    env.save(str(tmp_path / "vecnormalize.pkl"))
    normalized.save(tmp_path / "normalized")
    options = {"algo": "fql", "deterministic": True, "progress": False, "trusted": True}
    with pytest.raises(ValueError, match=r"was trained with `VecNormalize`: pass its statistics, .*--vec-normalize"):
        collect_with_policy("Pendulum-v1", tmp_path / "normalized", 5, "demo/a-v0", **options)
    with pytest.raises(ValueError, match="was trained without `VecNormalize`: leave out"):
        collect_with_policy("Pendulum-v1", raw, 5, "demo/a-v0", vec_normalize=tmp_path / "vecnormalize.pkl", **options)
    with pytest.raises(ValueError, match=r"another environment than MountainCarContinuous-v0\. Observation spaces do not"):
        collect_with_policy("MountainCarContinuous-v0", raw, 5, "demo/a-v0", **options)
    own = load_dataset(collect_with_policy("Pendulum-v1", normalized, 5, "demo/a-v0", **options))  # of its environment
    given = {"vec_normalize": tmp_path / "vecnormalize.pkl", **options}
    read = load_dataset(collect_with_policy("Pendulum-v1", tmp_path / "normalized", 5, "demo/b-v0", **given))
    np.testing.assert_array_equal(own.actions, read.actions)
    collect_with_policy("Pendulum-v1", raw, 5, "demo/c-v0", **options)


@pytest.mark.filterwarnings("ignore")
def test_dictionary_observations_and_terminations():
    import gymnasium as gym
    from minari.data_collector import EpisodeBuffer

    box = gym.spaces.Box(-10, 10, (2,), np.float64)
    space = gym.spaces.Dict(observation=box, desired_goal=box, achieved_goal=box)
    buffers = [
        EpisodeBuffer(
            id=index,
            observations={key: np.full((length + 1, 2), index + place) for place, key in enumerate(space)},
            actions=np.zeros((length, 1), dtype=np.float32),
            rewards=[0.0] * length,
            terminations=[False] * (length - 1) + [index == 0],
            truncations=[False] * (length - 1) + [index == 1],
            infos={},
        )
        for index, length in enumerate((2, 3))
    ]
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    minari.create_dataset_from_buffers("demo/goal-v0", buffers, observation_space=space, action_space=action_space)
    dataset = load_dataset("minari:demo/goal-v0")
    assert dataset.observations.keys() == {"observation", "desired_goal", "achieved_goal"}
    assert dataset.observations["desired_goal"].shape == (7, 2)
    assert np.flatnonzero(dataset.terminations).tolist() == [1]
    assert np.flatnonzero(dataset.ends).tolist() == [1, 5]


def test_nothing_is_downloaded(monkeypatch):
    import socket

    def forbidden(*_):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "create_connection", forbidden)
    monkeypatch.setattr(socket.socket, "connect", forbidden)
    with pytest.raises(DatasetError, match=r"minari download D4RL/door/human-v2"):
        load_dataset("minari:D4RL/door/human-v2")
    with pytest.raises(DatasetError, match="Expected a name"):
        load_dataset("D4RL/door/human-v2")


def test_damaged_files_are_named(model):
    collect_with_policy("Pendulum-v1", model, 30, "demo/a-v0", algo="sac", progress=False, trusted=True)
    folder = local_datasets()["minari:demo/a-v0"] / "data"
    (folder / "main_data.hdf5").write_bytes((folder / "main_data.hdf5").read_bytes()[:500])
    with pytest.raises(DatasetError, match="minari:demo/a-v0"):
        load_dataset("demo/a-v0")
    (folder / "metadata.json").write_text("{")
    with pytest.raises(DatasetError, match="minari:demo/a-v0"):
        load_dataset("demo/a-v0")


def test_replay_buffer_of_a_real_model():
    model = SAC("MlpPolicy", make_vec_env("Pendulum-v1", 2, seed=0), learning_starts=10_000, buffer_size=1000, seed=0)
    model.learn(500)
    buffer = model.replay_buffer
    dataset = OfflineDataset.from_replay_buffer(buffer, model.policy.unscale_action)
    assert len(dataset) == 500 and dataset.n_trajectories == 4  # 250 steps of each of two environments, 200 to an episode
    assert not dataset.terminations.any()
    assert np.flatnonzero(dataset.ends).tolist() == [199, 249, 449, 499]
    assert 1 < np.abs(dataset.actions).max() <= 2  # torques in N m, not scaled to [-1, 1]
    inside = np.flatnonzero(~dataset.ends)
    np.testing.assert_array_equal(dataset.next_observations[inside], dataset.observations[inside + 1])
