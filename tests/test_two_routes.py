"""The maze with two routes: it is deterministic, reports the route, and its expert demonstrates both."""

import itertools
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.env_checker import check_env

from sb3_flow import StreamingFlow
from sb3_flow.cli import main
from sb3_flow.datasets import RECIPES, collect, load_dataset
from sb3_flow.datasets.collect.maze import NEIGHBOURS
from sb3_flow.datasets.collect.two_routes import TwoRoutesExpert
from sb3_flow.datasets.collect.worker import make_expert
from sb3_flow.envs import TwoRoutes

pytestmark = pytest.mark.slow

pytest.importorskip("ogbench")

ID = "sb3_flow/TwoRoutes-v0"
START, GOAL = np.array([8.0, 8.0]), np.array([4.0, 20.0])  # meters
#: The corners of the routes, read off the maze, in meters.
WAYS = {
    "west": [(4, 8), (4, 12), (0, 12), (0, 20), (4, 20)],
    "east": [(12, 8), (12, 16), (8, 16), (8, 20), (4, 20)],
}


@pytest.fixture
def env():
    env = gym.make(ID)
    yield env
    env.close()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten demonstrations."""
    return collect("two-routes", episodes=10, directory=tmp_path_factory.mktemp("routes"), workers=1, progress=False)


def episodes_of(path):
    file = np.load(path)
    ends = np.flatnonzero(file["terminations"]) + 1
    for route, start, end in zip(file["episode_route"], [0, *ends[:-1]], ends, strict=True):
        yield ("west", "east")[route], {key: file[key][start:end] for key in ("observations", "actions", "rewards")}


def follow(env, corners):
    """Walk from corner to corner; the routes that were reported on the way, without repetitions, and the last step."""
    routes = []
    for corner in corners:
        for _ in range(100):
            step = env.step(np.array(corner, np.float32))
            if not routes or routes[-1] != step[4]["route"]:
                routes.append(step[4]["route"])
            if step[2] or np.abs(step[0] - corner).max() < 0.05:
                break
    return routes, step


def test_it_is_an_environment(env) -> None:
    check_env(env.unwrapped)
    with pytest.raises(ValueError, match="render_mode"):
        TwoRoutes(render_mode="depth_array")


def test_every_episode_starts_at_the_same_place(env) -> None:
    state = np.random.get_state()[1].copy()
    for seed in (None, 0, 1):
        observation, info = env.reset(seed=seed)
        np.testing.assert_array_equal(observation, START.astype(np.float32))
        assert info == {"route": None}
        env.step(np.array([4.0, 8.0], np.float32))
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # OGBench's own reset draws from it


def test_two_routes_of_equal_length_and_no_third() -> None:
    """Counted in OGBench's map."""
    env = gym.make(ID).unwrapped
    maze = env.maze
    start, goal = maze.xy_to_ij(START), maze.xy_to_ij(GOAL)

    def ways(cell: tuple[int, int], before: tuple[tuple[int, int], ...]) -> list[tuple[tuple[int, int], ...]]:
        before = (*before, cell)
        if cell == goal:
            return [before]
        neighbors = [(cell[0] + row, cell[1] + column) for row, column in NEIGHBOURS]
        return [way for n in neighbors if maze.maze_map[n] == 0 and n not in before for way in ways(n, before)]

    found = ways(start, ())
    assert [len(way) - 1 for way in found] == [6, 6]
    assert set(found[0]) & set(found[1]) == {start, goal}
    for way, gate in itertools.product(found, env.gates.values()):
        assert (gate in way) == (way[1][1] < start[1] if gate == env.gates["west"] else way[1][1] > start[1])


@pytest.mark.parametrize("route", WAYS)
def test_each_route_leads_to_the_goal(env, route: str) -> None:
    env.reset()
    routes, (observation, reward, terminated, _, info) = follow(env, WAYS[route])
    measures = {name: float(name == route) for name in WAYS}
    assert routes == [None, route] and terminated and reward == 1
    assert info == {"is_success": True, "route": route, "measures": measures}
    assert 0.7 < np.linalg.norm(observation - GOAL) <= 1
    np.testing.assert_array_equal(env.reset()[0], START.astype(np.float32))
    assert env.step(START.astype(np.float32))[4] == {
        "is_success": False,
        "route": None,
        "measures": {"west": 0.0, "east": 0.0},
    }


def test_it_is_the_last_gate_that_counts(env) -> None:
    """West as far as through the gate, back, and to the goal by the east."""
    env.reset()
    there = WAYS["west"][:4]
    routes, step = follow(env, [*there, *there[-2::-1], START, *WAYS["east"]])
    assert routes == [None, "west", "east"] and step[2]


def test_actions_are_positions(env) -> None:
    env.reset()
    position, *_ = env.step(np.array([7.9, 8.1], np.float32))
    np.testing.assert_allclose(position, [7.9, 8.1], atol=1e-6)
    position, *_ = env.step(np.array([0.0, 8.05], np.float32))  # too far: as near as a step goes
    np.testing.assert_allclose(position, [7.7, 8.05], atol=1e-6)
    # A wall is in the way, and the border of the action space is where the farthest target is.
    for _ in range(20):
        position, _, terminated, *_ = env.step(np.array([7.7, 1e9], np.float32))
    assert position[1] < 9.5 and not terminated
    with pytest.raises(ValueError, match="finite"):
        env.step(np.array([np.nan, 8.0], np.float32))


def test_time_is_limited(env) -> None:
    env.reset()
    steps = [env.step(START.astype(np.float32))[2:4] for _ in range(400)]
    assert not any(terminated for terminated, _ in steps) and [truncated for _, truncated in steps].index(True) == 399


# Demonstrations.


def test_demonstrations_go_by_both_routes_and_replay(env, data) -> None:
    taken = []
    for route, episode in episodes_of(data):
        observation, _ = env.reset(seed=5)
        for row, action in enumerate(episode["actions"]):
            np.testing.assert_array_equal(observation, episode["observations"][row])
            observation, reward, terminated, _, info = env.step(action)
            assert reward == episode["rewards"][row] and terminated == (row == len(episode["actions"]) - 1)
        assert info == {"is_success": True, "route": route, "measures": {name: float(name == route) for name in WAYS}}
        taken.append(route)
        assert 85 < len(episode["actions"]) < 160  # 24 meters, less the last one and what corners save, are 115 steps
    assert taken == ["west", "east"] * 5
    file = load_dataset(data)
    assert file.n_trajectories == 10 and file.rewards.sum() == file.terminations.sum() == 10
    file.check_actions(env.action_space.low, env.action_space.high)


def test_demonstrations_are_noisy_and_differ(data) -> None:
    episodes = [episode for route, episode in episodes_of(data) if route == "west"]
    assert len({episode["actions"].tobytes() for episode in episodes}) == 5
    # Steps towards the target, of length 1 with noise of 0.5, but for what is clipped to [-1, 1].
    steps = np.concatenate([(episode["actions"] - episode["observations"])[:15] for episode in episodes]) / 0.2
    assert np.abs(steps).max() <= 1 + 1e-4
    assert 0.4 < steps[:, 1].std() < 0.6 and steps[:, 0].mean() < -0.5 and abs(steps[:, 1].mean()) < 0.2


def test_an_episode_depends_on_its_seed_alone() -> None:
    recipe = RECIPES["two-routes"]
    seeds = [np.random.SeedSequence((3, 0, number)) for number in range(2)]
    expert = make_expert(recipe)
    assert isinstance(expert, TwoRoutesExpert)
    first, second = (expert.record(seed) for seed in seeds)
    for seed, episode in zip(seeds[::-1], (second, first), strict=True):
        for again in (expert.record(seed), make_expert(recipe).record(seed)):
            assert {field: column.tobytes() for field, column in again.items()} == {
                field: column.tobytes() for field, column in episode.items()
            }
    assert (int(first["episode_route"][0]), int(second["episode_route"][0])) == (0, 1)


def test_the_number_of_workers_does_not_matter(data, tmp_path: Path) -> None:
    other = collect("two-routes", episodes=10, directory=tmp_path, workers=2, progress=False)
    assert other.read_bytes() == data.read_bytes()
    with pytest.raises(ValueError, match="give --episodes"):
        collect("two-routes", transitions=100, directory=tmp_path, overwrite=True, progress=False)


def test_the_zoo_trains_on_it(
    data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("rl_zoo3")
    monkeypatch.setenv("SB3_FLOW_DATA_DIR", str(data.parent))
    options = f"--algo streaming_flow --env {ID} --conf-file streaming_flow_small -n 3"
    options += " --eval-freq 2 --eval-episodes 1 --n-eval-envs 1 --eval-samplers sampled"
    options += f" --log-folder {tmp_path} --device cpu --seed 0 --verbose 0 --env-kwargs max_episode_steps:20"
    predict, deterministic = StreamingFlow.predict, []
    monkeypatch.setattr(
        StreamingFlow,
        "predict",
        lambda *args, **kwargs: (deterministic.append(kwargs["deterministic"]), predict(*args, **kwargs))[1],
    )
    assert main(["train", *options.split(), "-params", "batch_size:16", "policy_kwargs:dict(net_arch=[16])"]) == 0
    assert deterministic == [True] * 20 + [False] * 20
    for name in ("streaming_flow", "streaming_flow-sampled"):
        (evaluations,) = (tmp_path / name).rglob("evaluations.npz")
        assert np.load(evaluations)["ep_lengths"].tolist() == [[20]]
        assert np.load(evaluations)["measure_west"].tolist() == [[0]]
    # The stochastic variant is.
    options = options.replace("streaming_flow --env", "streaming_flow_stochastic --env")
    assert main(["train", *options.split(), "-params", "batch_size:16"]) != 0
    assert "is always evaluated by sampled actions" in capsys.readouterr().err
