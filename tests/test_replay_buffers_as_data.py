"""A replay buffer is a dataset for another model, as those of Stable-Baselines3 are."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3 import SAC
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_flow import FQL
from sb3_flow.common.data.columns import DatasetError
from sb3_flow.common.data.dataset import OfflineDataset
from sb3_flow.common.data.online_buffer import OnlineBuffer

OBSERVATIONS = spaces.Box(-np.inf, np.inf, (3,), np.float32)
ACTIONS = spaces.Box(-2.0, 2.0, (2, 2), np.float32)


@pytest.mark.parametrize("n_steps", [5, 8, 21], ids=["half full", "full", "gone round"])
def test_both_buffers_give_the_same_data(n_steps: int) -> None:
    """The same transitions of two environments, terminated, truncated or neither, in a ring of eight steps."""
    rng = np.random.default_rng(0)
    ours = OnlineBuffer(16, OBSERVATIONS, ACTIONS, "cpu", n_envs=2)
    theirs = ReplayBuffer(16, OBSERVATIONS, ACTIONS, "cpu", n_envs=2)
    observations = rng.normal(size=(2, 3))
    for _ in range(n_steps):
        dones = rng.random(2) < 0.3
        infos = [{"TimeLimit.truncated": bool(done and rng.random() < 0.5)} for done in dones]
        following = rng.normal(size=(2, 3))
        row = (observations, following, rng.uniform(-1, 1, (2, 2, 2)), rng.normal(size=2), dones)
        for buffer in (ours, theirs):
            buffer.add(*row, infos)
        observations = np.where(dones[:, None], rng.normal(size=(2, 3)), following)

    def unscale(actions: np.ndarray) -> np.ndarray:
        return 2 * actions

    got, expected = ours.to_dataset(unscale), OfflineDataset.from_replay_buffer(theirs, unscale)
    for (field, column), (_, wanted) in zip(got.columns(), expected.columns(), strict=True):
        np.testing.assert_allclose(column, wanted, rtol=1e-6, err_msg=field)


def test_one_model_trains_another() -> None:
    first = FQL("FlowPolicy", gym.make("Pendulum-v1"), policy_kwargs={"net_arch": [16]}, batch_size=8).learn(50)
    second = FQL(
        "FlowPolicy", gym.make("Pendulum-v1"), dataset=first.replay_buffer, policy_kwargs={"net_arch": [16]}, batch_size=8
    )
    assert len(second.offline_buffer) == 50
    second.learn(5)
    assert second.n_offline_updates == 5


class Restless(gym.Env):
    """Observations never repeat; an episode ends at ten steps by a time limit, or at random by the end of the task."""

    observation_space, action_space = OBSERVATIONS, ACTIONS

    def __init__(self) -> None:
        self.observations: list[np.ndarray] = []

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.observations.append(self.np_random.normal(size=3).astype(np.float32))
        self.time = 0
        return self.observations[-1], {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.time += 1
        self.observations.append(self.np_random.normal(size=3).astype(np.float32))
        return self.observations[-1], 0.0, self.np_random.random() < 0.1, self.time == 10, {}


def test_episodes_that_learn_did_not_finish() -> None:
    """Each call of `learn` begins with a reset, and the buffer marks no end there. Chunks must not cross it."""
    envs = DummyVecEnv([Restless, Restless])
    model = SAC("MlpPolicy", envs, learning_starts=1_000, policy_kwargs={"net_arch": [4]}, seed=0)
    for _ in range(4):
        model.learn(2 * 13)
    data = OfflineDataset.from_replay_buffer(model.replay_buffer, model.policy.unscale_action)
    recorded = [env.unwrapped.observations for env in envs.envs]
    rows = {observation.tobytes(): (i, row) for i, one in enumerate(recorded) for row, observation in enumerate(one)}
    found = [rows[observation.tobytes()] for observation in np.float32(data.observations)]
    ends = [(i, row + 1) != after for (i, row), after in zip(found, [*found[1:], None], strict=True)]
    assert data.ends.tolist() == ends
    assert np.count_nonzero(data.ends) > np.count_nonzero(model.replay_buffer.dones)


def test_time_limits_that_a_buffer_does_not_handle() -> None:
    buffer = ReplayBuffer(8, OBSERVATIONS, ACTIONS, "cpu", handle_timeout_termination=False)
    for done in (False, True):
        buffer.add(np.ones((1, 3)), np.ones((1, 3)), np.zeros((1, 2, 2)), np.zeros(1), np.array([done]), [{}])
    with pytest.warns(UserWarning, match="All ends of episodes are read as ends of the task"):
        OfflineDataset.from_replay_buffer(buffer, lambda actions: actions)


@pytest.mark.parametrize("env", ["Pendulum-v1", None], ids=["environment", "no environment"])
def test_several_buffers(env: str | None) -> None:
    """Theirs and ours, in lists and in descriptions."""
    small = {"policy_kwargs": {"net_arch": [4]}, "batch_size": 4}
    ours = FQL("FlowPolicy", "Pendulum-v1", learning_starts=10, **small).learn(20).replay_buffer
    theirs = SAC("MlpPolicy", "Pendulum-v1", learning_starts=50, policy_kwargs={"net_arch": [4]}).learn(30).replay_buffer
    described = {"source": theirs, "weight": 2, "rewards": {"shift": -100}}
    model = FQL("FlowPolicy", env, dataset=[{"source": ours, "weight": 1}, described], **small)
    assert len(model.offline_buffer) == 50
    assert model.learn(2).n_offline_updates == 2


def test_a_buffer_of_discrete_actions_is_refused() -> None:
    discrete = ReplayBuffer(8, OBSERVATIONS, spaces.Discrete(2), "cpu")
    with pytest.raises(DatasetError, match=r"actions in Discrete\(2\); flow policies need a Box"):
        FQL("FlowPolicy", dataset=discrete)


def test_an_empty_one_is_refused() -> None:
    model = FQL("FlowPolicy", gym.make("Pendulum-v1"), policy_kwargs={"net_arch": [16]})
    with pytest.raises(DatasetError, match="empty"):
        model.set_dataset(model.replay_buffer)


def test_one_that_does_not_fit_says_so() -> None:
    """Images are large: a million stacked ones need dozens of gigabytes. Nothing is allocated before the first arrives."""
    images = spaces.Box(0, 255, (9, 64, 64), np.uint8)
    buffer = OnlineBuffer(10**12, images, ACTIONS, "cpu")
    image = images.sample()[None]
    with pytest.raises(MemoryError, match="smaller `buffer_size`"):
        buffer.add(image, image, np.zeros((1, 4)), np.zeros(1), np.zeros(1), [{}])
