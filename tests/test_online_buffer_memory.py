"""
Each observation is stored once, and comes out as it went in.

The reference keeps the last rows as they came, one object each. What is drawn must equal it exactly, wherever episodes end,
environments are reset without being done, the ring goes round, or frames are stacked.
"""

import pickle
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stable_baselines3.common.vec_env.stacked_observations import StackedObservations

from sb3_flow.common.data.online_buffer import OnlineBuffer

ACTIONS = spaces.Box(-1.0, 1.0, (2,))
FRAME = spaces.Box(0, 255, (2, 5, 4), np.uint8)
Observation = dict[str, np.ndarray]


class Cameras:
    """
    Environments with a camera, whose frames are stacked as Stable-Baselines3 does it, and a vector.

    :param n_envs: Number of environments
    :param n_stack: Number of frames in a stack
    :param rng: What it draws from
    """

    def __init__(self, n_envs: int, n_stack: int, rng: np.random.Generator) -> None:
        self.n_envs, self.rng = n_envs, rng
        self.stack = StackedObservations(n_envs, n_stack, FRAME, "first")
        self.space = spaces.Dict(camera=self.stack.stacked_observation_space, state=spaces.Box(-np.inf, np.inf, (3,)))
        self.reset()

    def _draw(self) -> tuple[np.ndarray, np.ndarray]:
        # Some pictures are black, as those before an episode are, and some show what others show.
        frames = self.rng.integers(0, 2, (self.n_envs, *FRAME.shape)) * self.rng.integers(0, 3, (self.n_envs, 2, 1, 1))
        return frames.astype(np.uint8), self.rng.integers(0, 3, (self.n_envs, 3)).astype(np.float64)

    def reset(self) -> None:
        frames, state = self._draw()
        self.obs = {"camera": self.stack.reset(frames).copy(), "state": state}

    def step(self, dones: np.ndarray) -> tuple[Observation, Observation]:
        """The observation before a step, and the one after it: of episodes that are done, their last one."""
        before, (frames, state), (last_frames, last_state) = self.obs, self._draw(), self._draw()
        infos = [{"terminal_observation": last_frames[i]} if done else {} for i, done in enumerate(dones)]
        stacks, infos = self.stack.update(frames, dones, infos)
        self.obs = {"camera": stacks.copy(), "state": state}
        after = {key: part.copy() for key, part in self.obs.items()}
        for i in np.flatnonzero(dones):
            after["camera"][i], after["state"][i] = infos[i]["terminal_observation"], last_state[i]
        return before, after


def add(buffer: OnlineBuffer, before: Any, after: Any, dones: np.ndarray) -> None:
    n = len(dones)
    infos = [{"TimeLimit.truncated": bool(done and i % 2)} for i, done in enumerate(dones)]
    buffer.add(before, after, np.zeros((n, 2)), np.zeros(n), dones, infos)


def assert_holds(buffer: OnlineBuffer, rows: list[tuple[Observation, Observation]]) -> None:
    """The buffer's rows are those added last, each environment's own."""
    length, n_envs = buffer.buffer_size, buffer.n_envs
    kept = list(enumerate(rows))[-length:]
    batch = buffer.draw(th.tensor([(time % length) * n_envs + e for time, _ in kept for e in range(n_envs)]))
    for part, i in ((batch.observations, 0), (batch.next_observations, 1)):
        for key in ("camera", "state"):
            np.testing.assert_array_equal(part[key], np.concatenate([row[i][key] for _, row in kept]))


@pytest.mark.slow
@given(
    n_envs=st.integers(1, 3),
    n_stack=st.integers(1, 3),
    length=st.integers(1, 8),
    events=st.lists(st.sampled_from(["step", "step", "step", "done", "cut", "foreign", "pickle"]), min_size=1, max_size=30),
    seed=st.integers(0, 1000),
)
@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_what_comes_out_is_what_went_in(n_envs: int, n_stack: int, length: int, events: list[str], seed: int) -> None:
    """After any history: steps, ends of episodes, resets, rows that have nothing to do with each other, and pickling."""
    rng = np.random.default_rng(seed)
    cameras = Cameras(n_envs, n_stack, rng)
    buffer = OnlineBuffer(length * n_envs, cameras.space, ACTIONS, "cpu", n_envs)
    rows: list[tuple[Observation, Observation]] = []
    for event in events:
        if event == "cut":
            cameras.reset()
            buffer.cut()
            continue
        if event == "pickle":
            buffer = pickle.loads(pickle.dumps(buffer))
            continue
        dones = rng.random(n_envs) < 0.5 if event == "done" else np.zeros(n_envs, dtype=bool)
        before, after = cameras.step(dones)
        if event == "foreign":
            after = {key: rng.integers(0, 3, part.shape).astype(part.dtype) for key, part in after.items()}
        add(buffer, before, after, dones)
        rows.append((before, after))
        assert_holds(buffer, rows)
    if rows:
        data = buffer.to_dataset(lambda actions: actions)
        kept = rows[-length:]
        for i, part in enumerate((data.observations, data.next_observations)):
            wanted = np.concatenate([row[i]["camera"][e][None] for e in range(n_envs) for row in kept])
            np.testing.assert_array_equal(part["camera"], wanted)  # type: ignore[index]


def test_what_was_added_may_be_overwritten() -> None:
    """Environments write into the same array again and again."""
    buffer = OnlineBuffer(4, spaces.Box(-9, 9, (1,)), ACTIONS, "cpu")
    obs, after = np.zeros((1, 1), np.float32), np.ones((1, 1), np.float32)
    for value in range(3):
        obs[:], after[:] = value, value + 1
        add(buffer, obs, after, np.zeros(1, bool))
    obs[:] = after[:] = 7
    add(buffer, obs, after, np.zeros(1, bool))
    batch = buffer.draw(th.arange(4))
    assert batch.observations[:, 0].tolist() == [0, 1, 2, 7]
    assert batch.next_observations[:, 0].tolist() == [1, 2, 3, 7]


@pytest.mark.parametrize("n_stack", [1, 3, 4])
@pytest.mark.parametrize("n_envs", [1, 2])
def test_frames_are_stored_once(n_stack: int, n_envs: int) -> None:
    """
    A row costs one frame, whatever is stacked; an episode costs its first stack and its last frame besides. What is
    overwritten makes room for what comes, so that it stays like that.
    """
    rng = np.random.default_rng(0)
    stack = StackedObservations(n_envs, n_stack, FRAME, "first")
    length, episode = 100, 25
    buffer = OnlineBuffer(length * n_envs, stack.stacked_observation_space, ACTIONS, "cpu", n_envs)

    def frames() -> np.ndarray:
        return rng.integers(0, 256, (n_envs, *FRAME.shape), dtype=np.uint8)

    before = stack.reset(frames()).copy()
    for time in range(6 * length):
        dones = np.full(n_envs, time % episode == episode - 1)
        last = frames()
        after, infos = stack.update(
            frames(), dones, [{"terminal_observation": last[e]} if dones[e] else {} for e in range(n_envs)]
        )
        following = np.stack([infos[e]["terminal_observation"] if dones[e] else after[e] for e in range(n_envs)])
        add(buffer, before, following, dones)
        before = after.copy()
    store = buffer.stores[""]
    frames_a_row = store.n_used / FRAME.shape[0] / (length * n_envs)
    assert 1.0 <= frames_a_row <= 1 + (n_stack + 1) / episode + (n_stack + 1) / length
    # What is pickled is what is used.
    assert len(pickle.dumps(store)) < 1.3 * store.n_used * store.plane_size + 20_000


def test_vectors_are_stored_once() -> None:
    """One more vector an episode, and no more."""
    buffer = OnlineBuffer(100, spaces.Box(-np.inf, np.inf, (3,)), ACTIONS, "cpu")
    rng = np.random.default_rng(0)
    obs = rng.normal(size=(1, 3))
    for time in range(250):
        done = np.array([time % 20 == 19])
        after = rng.normal(size=(1, 3))
        add(buffer, obs, after, done)
        obs = rng.normal(size=(1, 3)) if done else after
    assert buffer.stores[""].n_used - 1 <= 100 + 100 // 20 + 3
