"""A replay buffer is a dataset for another model, as those of Stable-Baselines3 are."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer

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
    for _ in range(n_steps):
        dones = rng.random(2) < 0.3
        infos = [{"TimeLimit.truncated": bool(done and rng.random() < 0.5)} for done in dones]
        row = (rng.normal(size=(2, 3)), rng.normal(size=(2, 3)), rng.uniform(-1, 1, (2, 2, 2)), rng.normal(size=2), dones)
        for buffer in (ours, theirs):
            buffer.add(*row, infos)

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
