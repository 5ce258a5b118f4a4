"""The Push-T expert: its geometry, its copy of the simulator, and that its demonstrations replay in the environment."""

import json
import sys
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from python_process import PythonProcess

from sb3_flow.common.data.columns import DatasetError
from sb3_flow.common.environments import make_env
from sb3_flow.datasets import RECIPES, collect, load_dataset, local_datasets
from sb3_flow.datasets.collect.pusht.planner import OUTSIDE, STAGES, Habits, Planner, walk
from sb3_flow.datasets.collect.pusht.routes import CLEARANCE, RING, Routes
from sb3_flow.datasets.collect.pusht.tee import rotation, to_body, to_world
from sb3_flow.datasets.collect.pusht.twin import State, Twin
from sb3_flow.datasets.collect.store import PartialCollection
from sb3_flow.datasets.collect.worker import make_expert

pytest.importorskip("gym_pusht")
shapely = pytest.importorskip("shapely")

GOAL = np.array([256.0, 256.0, np.pi / 4])


def beside_goal(x, y, angle):
    """A pose that is off the goal by so much."""
    return GOAL + np.array([x, y, angle])


@pytest.fixture
def env():
    env = make_env("gym_pusht/PushT-v0", disable_env_checker=True)
    env.reset(seed=0)
    yield env
    env.close()


@pytest.fixture
def twin(env):
    return Twin(env.unwrapped)


@pytest.fixture(scope="module")
def demonstrations(tmp_path_factory):
    """Four episodes (one of them for validation), states."""
    return collect("pusht", episodes=3, directory=tmp_path_factory.mktemp("pusht"), workers=1, progress=False)


def content(path):
    return path.read_bytes(), path.with_name(f"{path.stem}-val.npz").read_bytes()


def episodes_of(path):
    """The episodes of a file, and the seeds that the environment was reset with."""
    file = np.load(path)
    ends = np.flatnonzero(file["terminations"]) + 1
    starts = np.concatenate([[0], ends[:-1]])
    columns = {field: file[field] for field in file.files if field.startswith(("observations", "actions", "rewards"))}
    for start, end, seed in zip(starts, ends, file["episode_seed"], strict=True):
        yield int(seed), {field: column[start:end] for field, column in columns.items()}


# Geometry.


def test_the_block_is_a_tee(twin):
    tee = twin.tee
    assert len(tee.outline) == 8 and shapely.Polygon(tee.outline).exterior.is_ccw
    assert tee.polygon.area == 120 * 30 + 30 * 90
    assert len(tee.contacts) == 28  # five on each of the five long edges, one on each of the three short ones
    np.testing.assert_allclose(np.linalg.norm(tee.normals, axis=1), 1)
    # A little outwards is outside, a little inwards is inside.
    np.testing.assert_allclose(tee.gap(tee.contacts + 0.5 * tee.normals), 0.5)
    assert shapely.contains(tee.polygon, shapely.points(tee.contacts - 0.5 * tee.normals)).all()


def test_distance_and_coverage(twin, env):
    tee = twin.tee
    assert tee.distance(GOAL) == pytest.approx(0, abs=1e-9) and tee.coverage(GOAL) == pytest.approx(1)
    assert tee.distance(beside_goal(3.0, 4.0, 0.0)) == pytest.approx(5)
    # Turned round its origin by an angle, a point at radius r moves by 2 r sin(angle / 2).
    corners = np.array([(-60, 0), (60, 0), (60, 30), (-60, 30), (-15, 30), (15, 30), (15, 120), (-15, 120)])
    expected = np.sqrt(np.mean((2 * np.linalg.norm(corners, axis=1) * np.sin(0.15)) ** 2))
    assert tee.distance(beside_goal(0.0, 0.0, 0.3)) == pytest.approx(expected)
    poses = np.stack([GOAL, beside_goal(5.0, 0.0, 0.1), beside_goal(-40.0, 10.0, 2.0), beside_goal(300.0, 0.0, 0.0)])
    coverage = []
    for pose in poses:  # what the environment says of a block that lies there
        env.reset(seed=0)
        body = env.unwrapped.block
        body.angle, body.position = pose[2], tuple(pose[:2])
        env.unwrapped.agent.position = (20, 20)
        coverage.append(env.step(np.array([20.0, 20.0]))[4]["coverage"])
    assert 0 < coverage[2] < coverage[1] < 1
    np.testing.assert_allclose(tee.coverage(poses), coverage, atol=1e-6)


def test_frames():
    pose = np.array([10.0, 20.0, np.pi / 2])
    np.testing.assert_allclose(to_world(np.array([[1.0, 0.0], [0.0, 2.0]]), pose), [[10, 21], [8, 20]], atol=1e-12)
    points = np.random.default_rng(0).normal(size=(5, 2))
    np.testing.assert_allclose(to_body(to_world(points, pose), pose), points)


# Ways.


@pytest.mark.parametrize("agent", [(60.0, 60.0), (450.0, 300.0), (250.0, 180.0)])
def test_ways_keep_clear_of_the_block(twin, agent):
    routes = Routes(twin.tee, twin.radius, 512.0)
    block = np.array([256.0, 256.0, 0.7])
    ways = routes.ways(np.array(agent), block)
    assert len(ways) == len(routes.stands)  # all places can be reached in the middle of the world
    for place, corners in ways.items():
        np.testing.assert_allclose(corners[-1], to_world(routes.stands[place][None], block)[0])
        points = to_body(np.concatenate([[agent], corners]), block)
        gaps = twin.tee.gap_of_lines(points[:-1], points[1:])
        assert (gaps >= twin.radius + CLEARANCE - 1e-6).all()
        # Never longer than twice the way round.
        assert np.linalg.norm(np.diff(points, axis=0), axis=1).sum() < 900


def test_ways_are_the_shortest(twin):
    """As found by Floyd and Warshall's algorithm, among the same corners."""
    routes = Routes(twin.tee, twin.radius, 512.0)
    block, agent = np.array([256.0, 256.0, 0.7]), np.array([60.0, 256.0])
    nodes = np.concatenate([to_body(agent, block)[None], routes.stands, twin.tee.ring(twin.radius + RING)])
    starts, ends = np.broadcast_arrays(nodes[:, None], nodes[None])
    length = np.linalg.norm(starts - ends, axis=-1)
    length[twin.tee.gap_of_lines(starts, ends) < twin.radius + CLEARANCE] = np.inf
    for node in range(len(nodes)):
        length = np.minimum(length, length[:, node : node + 1] + length[node : node + 1])
    for place, corners in routes.ways(agent, block).items():
        found = np.linalg.norm(np.diff(np.concatenate([agent[None], corners]), axis=0), axis=1).sum()
        assert found == pytest.approx(length[0, 1 + place])


def test_an_agent_that_is_too_near_steps_away_first(twin):
    block = np.array([256.0, 256.0, 0.0])
    agent = np.array([256.0, 256.0 - twin.radius - 1.0])  # just above the bar
    ways = Routes(twin.tee, twin.radius, 512.0).ways(agent, block)
    assert len(ways) > 20
    for corners in ways.values():
        assert twin.tee.gap(to_body(corners[0], block)) >= twin.radius + CLEARANCE
        assert corners[0][1] < agent[1]


def test_places_outside_of_the_world_are_not_stood_at(twin):
    block = np.array([256.0, 12.0, 0.0])  # its bar along the wall, without a gap for the agent
    routes = Routes(twin.tee, twin.radius, 512.0)
    ways = routes.ways(np.array([256.0, 400.0]), block)
    assert ways and len(ways) < len(routes.stands)
    for corners in ways.values():
        assert (corners >= 0).all() and (corners <= 512).all()
    above = [place for place, stand in enumerate(routes.stands) if stand[1] < 0]
    assert above and not set(above) & set(ways)


def test_walking_at_a_steady_speed():
    commands = walk(np.zeros(2), np.array([[0.0, 10.0], [20.0, 10.0]]), speed=4.0)
    assert len(commands) == 8 and commands[-1].tolist() == [20, 10]  # 30 pixels
    np.testing.assert_allclose(commands[:2], [[0, 3.75], [0, 7.5]])
    assert walk(np.ones(2), np.ones((1, 2)), speed=4.0).tolist() == [[1, 1]]


# The copy of the simulator.


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_copy_does_what_the_environment_does(env, seed):
    """Also in contact, and with the block against the wall."""
    env.reset(seed=seed)
    twin = Twin(env.unwrapped)
    rng = np.random.default_rng(seed)
    moved = 0.0
    for _ in range(3):  # through the block, three times, to the border
        state = twin.state_of(env.unwrapped)
        target = state.block[:2] + rng.normal(0, 20, size=2)
        commands = walk(state.agent[:2], np.array([target, 1.5 * target - 0.5 * state.agent[:2]]), 12.0).clip(0, 512)
        before = twin.try_out(state, commands)
        poses = [env.step(command)[4]["block_pose"] for command in commands]
        np.testing.assert_allclose(before[0], poses, atol=0.5)
        np.testing.assert_allclose(before[1].agent, twin.state_of(env.unwrapped).agent, atol=1e-9)
        np.testing.assert_array_equal(before[1].block, before[0][-1])
        moved += np.abs(np.diff(np.array(poses)[:, :2], axis=0)).sum()
    assert moved > 100


def test_what_was_tried_before_does_not_matter(env, twin):
    state = twin.state_of(env.unwrapped)
    commands = walk(state.agent[:2], state.block[None, :2], 10.0)
    poses, _ = twin.try_out(state, commands)
    twin.try_out(State(np.array([50.0, 50.0, 0.0, 0.0]), np.array([80.0, 70.0, 1.0])), np.full((5, 2), 90.0))
    np.testing.assert_array_equal(twin.try_out(state, commands)[0], poses)
    assert np.abs(poses[-1] - state.block).max() > 1
    # Nothing that the caller owns has changed.
    np.testing.assert_array_equal(state.block, twin.state_of(env.unwrapped).block)


def test_the_walls(twin):
    assert twin.inside(GOAL) and not twin.inside(np.array([256.0, 6.0, 0.0])) and twin.inside(np.array([256.0, 6.0, 0.0]), 1.5)
    assert not twin.inside(np.array([256.0, 400.0, 0.0]))  # the stem is 120 long


# Plans.


def test_a_plan_brings_the_block_nearer(env, twin):
    planner = Planner(twin, Habits(), np.random.default_rng(0))
    before = twin.state_of(env.unwrapped)
    commands = planner.plan(before)
    # The more pushes are tried with the way there, the better the one that is chosen.
    ends = [twin.try_out(before, Planner(twin, Habits(finalists=1), np.random.default_rng(0)).plan(before))[1].block]
    ends.append(twin.try_out(before, commands)[1].block)
    assert twin.tee.distance(ends[1]) <= twin.tee.distance(ends[0])
    assert (commands >= 0).all() and (commands <= 512).all()
    assert np.linalg.norm(np.diff(np.concatenate([before.agent[None, :2], commands]), axis=0), axis=1).max() <= 14.01
    for command in commands:
        env.step(command)
    after = twin.state_of(env.unwrapped)
    assert twin.tee.distance(after.block) < 0.8 * twin.tee.distance(before.block)


def test_a_plan_always_moves_the_block(twin):
    """Otherwise the same plan would repeat forever where every push increases the cost, as at the goal."""
    state = State(np.array([150.0, 150.0, 0.0, 0.0]), GOAL)
    commands = Planner(twin, Habits(), np.random.default_rng(0)).plan(state)
    poses, _ = twin.try_out(state, commands)
    assert np.abs((poses[-1] - GOAL) * (1.0, 1.0, 60.0)).max() > 0.2
    assert twin.tee.coverage(poses[-1]) > 0.9


@pytest.mark.slow
@pytest.mark.parametrize(("off", "speed"), [((-90.0, -90.0, 0.0), 11.0), ((25.0, 25.0, 0.0), 4.0), ((-6.0, 6.0, 0.0), 2.5)])
def test_pushes_are_slower_the_nearer_the_goal(twin, off, speed):
    """A plan is the way there, a rest, the push, a rest, and two steps back, at the pace of the episode."""
    state = State(np.array([60.0, 60.0, 0.0, 0.0]), beside_goal(*off))
    for pace in (0.8, 1.2):
        commands = Planner(twin, Habits(pace=pace, finalists=3), np.random.default_rng(0)).plan(state)
        moves = np.diff(commands, axis=0)
        steps = np.linalg.norm(moves, axis=1)
        rests = np.flatnonzero(steps < 1e-9)
        assert rests[-2:].tolist() == [len(steps) - 4, len(steps) - 3] and len(rests) == 4
        push = slice(rests[1] + 1, rests[2])
        np.testing.assert_allclose(steps[push], speed * pace)
        np.testing.assert_allclose(steps[-2:], 14.0 * pace)
        np.testing.assert_allclose(moves[-1] / steps[-1], -moves[push][0] / steps[push][0])  # back by the way of the push
        assert 0.8 * 14.0 * pace < steps[: rests[0]].max() <= 14.0 * pace + 1e-9
        # It begins at a place of its own, and goes inwards there, by 0.6 radians to either side at most.
        routes = Routes(twin.tee, twin.radius, 512.0)
        stands = to_world(routes.stands, state.block)
        distances = np.linalg.norm(stands - commands[rests[0]], axis=1)
        place = distances.argmin()
        inward = to_world(routes.stands - routes.normals, state.block)[place] - stands[place]
        assert distances[place] < 1e-6 and moves[push][0] @ inward / steps[push][0] > np.cos(0.6) - 1e-6


def test_what_pushes_are_ranked_by(twin):
    """The distance from the goal, near it the share that is not covered; never into a wall, never without effect."""
    planner, tee = Planner(twin, Habits(), np.random.default_rng(0)), twin.tee
    for before, cost in (
        (beside_goal(-60, -60, 0), tee.distance),
        (beside_goal(5, 5, 0), lambda pose: 1 - tee.coverage(pose)),
    ):
        moved, still = (before + np.array(move) for move in ((4, 0, 0.1), (0.3, 0, 0.005)))
        outside = np.array([256.0, 440.0, 0.0])
        expected = [cost(moved), cost(outside) + OUTSIDE, np.inf]
        np.testing.assert_allclose(planner._cost(np.stack([moved, outside, still]), before), expected)


def test_how_long_a_push_is(twin):
    """As many steps as bring the block nearest, where the agent lags by two steps behind its commands."""
    block, routes = beside_goal(-60, -60, 1.0), Routes(twin.tee, twin.radius, 512.0)
    planner = Planner(twin, Habits(), np.random.default_rng(0))
    pushes, noise = planner._try_pushes(block, STAGES[0], list(range(len(routes.stands))))
    assert noise == 0 and len(pushes) == 5 * len(routes.stands)
    best = []
    for place, direction, steps in (pushes[0], pushes[10], pushes[20]):
        stand = to_world(routes.stands, block)[place]
        commands = stand + 11.0 * np.arange(1, 17)[:, None] * direction
        poses, _ = twin.try_out(State(np.array([*stand, 0.0, 0.0]), block), commands)
        distances = twin.tee.distance(poses[2:])
        assert steps == distances.argmin() + 1 and distances.min() < twin.tee.distance(block)
        best.append(distances.min())
    assert best == sorted(best)


@pytest.mark.slow
def test_whims(env, twin):
    """Without random numbers the plan is deterministic; with them, candidates and the choice among them vary."""
    state = twin.state_of(env.unwrapped)

    def differ(**habits):
        plans = [Planner(twin, Habits(**habits), np.random.default_rng(number)).plan(state) for number in range(2)]
        return not np.array_equal(*plans)

    assert not differ(finalists=3)
    assert differ(finalists=1, whim=3.0)
    assert differ(finalists=1000, whim=3.0)


# Episodes.


@pytest.mark.nightly
def test_an_episode_depends_on_its_seed_alone():
    expert = make_expert(RECIPES["pusht"])
    first, other = np.random.SeedSequence((0, 0, 5)), np.random.SeedSequence((0, 0, 6))
    episode = expert.record(first)
    between = expert.record(other)
    again, anew = expert.record(first), make_expert(RECIPES["pusht"]).record(first)
    for field, column in episode.items():
        assert column.tobytes() == again[field].tobytes() == anew[field].tobytes(), field
    assert not np.array_equal(episode["actions"][:20], between["actions"][:20])
    # With the same start, another expert's taste is another way.
    seed = int(episode["episode_seed"][0])
    ways = [expert.attempt(seed, np.random.default_rng(number)) for number in range(2)]
    np.testing.assert_array_equal(ways[0]["observations"][0], ways[1]["observations"][0])
    assert not np.array_equal(ways[0]["actions"][:20], ways[1]["actions"][:20])


@pytest.mark.slow
def test_commands_replay_in_the_environment(demonstrations, env):
    lengths = []
    for seed, episode in episodes_of(demonstrations):
        observation, _ = env.reset(seed=seed)
        for row, action in enumerate(episode["actions"]):
            np.testing.assert_array_equal(np.float32(observation), episode["observations"][row])
            observation, reward, terminated, truncated, info = env.step(action)
            assert np.float32(reward) == episode["rewards"][row]
            assert terminated == (row == len(episode["actions"]) - 1) and not truncated
        assert info["is_success"] and info["coverage"] > 0.95
        lengths.append(row + 1)
    assert len(lengths) == 3 and len(set(lengths)) > 1


@pytest.mark.slow
def test_the_file(demonstrations):
    file = np.load(demonstrations)
    metadata = json.loads(str(file["metadata"]))
    assert (metadata["name"], metadata["episodes"], metadata["seed"], metadata["split"]) == ("pusht", 3, 0, "train")
    assert metadata["dropped"] == file["episode_dropped"].sum() and metadata["gym-pusht"] and metadata["pymunk"]
    assert len(set(file["episode_seed"])) == 3
    data = load_dataset(demonstrations)
    assert data.n_trajectories == 3 and len(data) == len(data.actions) == len(file["actions"])
    np.testing.assert_array_equal(data.terminations, data.ends)
    space = gym.make("gym_pusht/PushT-v0").action_space
    data.check_actions(space.low, space.high)
    validation = np.load(demonstrations.with_name("pusht-val.npz"))
    assert validation["terminations"].sum() == 1 and validation["episode_seed"][0] not in file["episode_seed"]


@pytest.mark.slow
def test_images_are_of_the_same_episodes(demonstrations, tmp_path):
    """And the number of workers does not matter."""
    path = collect("pusht-pixels", episodes=1, directory=tmp_path, workers=2, progress=False)
    (seed, states), *_ = episodes_of(demonstrations)
    ((same, images),) = episodes_of(path)
    assert same == seed
    np.testing.assert_array_equal(images["actions"], states["actions"])
    np.testing.assert_array_equal(images["observations/agent_pos"], states["observations"][:, :2])
    env = make_env("gym_pusht/PushT-v0", obs_type="pixels_agent_pos")
    observation, _ = env.reset(seed=seed)
    np.testing.assert_array_equal(images["observations/pixels"][0], observation["pixels"])
    assert env.observation_space["pixels"].shape == load_dataset(path).observations["pixels"].shape[1:] == (96, 96, 3)
    validation = np.load(path.with_name("pusht-pixels-val.npz"))
    np.testing.assert_array_equal(validation["actions"], np.load(demonstrations.with_name("pusht-val.npz"))["actions"])


def test_failures_are_dropped_and_counted(monkeypatch):
    expert = make_expert(RECIPES["pusht"])
    attempts = []
    episode = {"actions": np.zeros((2, 2), dtype=np.float32)}

    def attempt(env_seed, rng):
        attempts.append(env_seed)
        return episode if len(attempts) == 3 else None

    monkeypatch.setattr(expert, "attempt", attempt)
    recorded = expert.record(np.random.SeedSequence(0))
    assert recorded["episode_dropped"].tolist() == [2] and recorded["episode_seed"].tolist() == [attempts[2]]
    assert len(set(attempts)) == 3
    monkeypatch.setattr(expert, "attempt", lambda env_seed, rng: None)
    with pytest.raises(RuntimeError, match="failed 20 times"):
        expert.record(np.random.SeedSequence(0))


def test_an_expert_that_is_too_slow_fails():
    expert = make_expert(RECIPES["pusht"])
    expert.env.reset(seed=0)
    expert.env = gym.wrappers.TimeLimit(expert.env.unwrapped, 20)
    assert expert.attempt(0, np.random.default_rng(0)) is None


def test_a_block_that_leaves_the_walls_ends_the_episode(monkeypatch):
    """
    At once, and not when time is up. Into a wall it is hard to push: the walls are taken to be 60 pixels further in, and a
    planner that knows no better pushes the block there.
    """

    class Pusher:
        def __init__(self, twin, *_):
            self.routes = Routes(twin.tee, twin.radius, 512.0)

        def plan(self, state):
            ways = self.routes.ways(state.agent[:2], state.block)
            inward = -self.routes.normals @ rotation(state.block[2]).T
            place = max(ways, key=lambda place: inward[place, 1])  # the side that looks away from the wall where y is large
            push = ways[place][-1] + 10.0 * np.arange(1, 15)[:, None] * (0.0, 1.0)
            return np.concatenate([walk(state.agent[:2], ways[place], 14.0), push])

    expert = make_expert(RECIPES["pusht"])
    module = sys.modules[type(expert).__module__]
    monkeypatch.setattr(module, "Planner", Pusher)
    monkeypatch.setattr(module, "INTO_WALL", -60.0)
    steps = []
    expert.env = gym.wrappers.TransformReward(expert.env, lambda reward: steps.append(reward) or reward)
    assert expert.attempt(0, np.random.default_rng(0)) is None
    twin = Twin(expert.env.unwrapped)
    assert not twin.inside(Twin.state_of(expert.env.unwrapped).block, -60.0) and 10 < len(steps) < 250


@pytest.mark.nightly
def test_a_killed_run_goes_on(tmp_path, demonstrations):
    command = ["-m", "sb3_flow.cli", "datasets", "collect", "pusht", "--episodes", 3]
    process = PythonProcess(*command, "--workers", 1, "--no-progress", "--directory", tmp_path)
    partial = tmp_path / "pusht.partial"
    deadline = time.monotonic() + 300
    while not list(partial.glob("train-*.npz")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    assert not list(tmp_path.glob("*.npz"))
    first = partial / "train-000000.npz"
    kept, removed = first.stat().st_mtime_ns, []
    original = PartialCollection.remove
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PartialCollection, "remove", lambda store: removed.append(first.stat().st_mtime_ns) or original(store))
        path = collect("pusht", episodes=3, directory=tmp_path, workers=1, progress=False)
    assert content(path) == content(demonstrations)
    assert removed == [kept]  # the finished episode was not recorded again


# Names.


@pytest.mark.slow
def test_by_name(demonstrations, tmp_path, monkeypatch):
    monkeypatch.setenv("SB3_FLOW_DATA_DIR", str(tmp_path / "own"))
    with pytest.raises(DatasetError, match="sb3-flow datasets collect pusht`"):
        load_dataset("pusht")
    assert local_datasets() == {}
    monkeypatch.setenv("SB3_FLOW_DATA_DIR", str(demonstrations.parent))
    assert local_datasets() == {"pusht": demonstrations}
    assert load_dataset("pusht").name == "pusht" and load_dataset("pusht").n_trajectories == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"transitions": 100}, "give --episodes"),
        ({"episodes": 0}, "episodes is 0"),
        ({"name": "cube-single-play-v0", "episodes": 1, "transitions": 100}, "one of them"),
    ],
)
def test_wrong_numbers(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        collect(**{"name": "pusht", "directory": tmp_path, **arguments})
    assert not list(Path(tmp_path).iterdir())
