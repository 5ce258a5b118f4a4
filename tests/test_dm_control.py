"""Environments of dm_control, for real: by their ids, through the zoo, and as images."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
import yaml
from gymnasium import spaces

from sb3_flow import FPMD, FQL
from sb3_flow.cli import main
from sb3_flow.common.environments import make_env, register_environment
from sb3_flow.envs.pixels import PixelObservation

SMALL: dict[str, Any] = {"batch_size": 8, "flow_steps": 2, "buffer_size": 2_000, "policy_kwargs": {"net_arch": [8]}}
FPMD_SMALL = {**SMALL, "particles": 3, "learning_starts": 6}
CARTPOLE, WALKER = "dm_control/cartpole-swingup-v0", "dm_control/walker-walk-v0"


@pytest.fixture
def dm_control() -> None:
    """Skips tests where dm_control is not installed."""
    pytest.importorskip("dm_control")
    pytest.importorskip("shimmy")


# By their ids.


@pytest.mark.parametrize("package", ["dm_control", "shimmy"])
def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    """Either of the two; the message has the pip line that brings both."""
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"'dm_control/new-v0' needs the package `{package}`.*'sb3_flow\[dm-control\]'"):
        register_environment("dm_control/new-v0")


@pytest.mark.usefixtures("dm_control")
def test_an_unknown_task_is_told_from_a_missing_package() -> None:
    with pytest.raises(gym.error.NameNotFound, match="walker-walk"):
        FPMD("FlowPolicy", "dm_control/walker-wlak-v0")


@pytest.mark.usefixtures("dm_control")
@pytest.mark.parametrize("cls", [FPMD, FQL])
def test_dictionaries_of_double_precision_are_learned_from(cls: type) -> None:
    """The walker's height is a number without any axis. Each part of an observation is seen."""
    small = FPMD_SMALL if cls is FPMD else {**SMALL, "learning_starts": 6}
    model = cls("FlowPolicy", WALKER, seed=0, device="cpu", **small).learn(12)
    space = model.observation_space
    assert isinstance(space, spaces.Dict) and space["height"].shape == () and space["height"].dtype == np.float64
    space.seed(0)
    batch = {key: np.stack([part.sample() for _ in range(4)]) for key, part in space.items()}
    actions, _ = model.predict(batch, deterministic=True)
    assert actions.dtype == np.float64 and all(model.action_space.contains(action) for action in actions)
    for part in batch:
        mixed = {key: value if key == part else value[[0] * 4] for key, value in batch.items()}
        assert len(np.unique(model.predict(mixed, deterministic=True)[0], axis=0)) == 4, part
    stored = model.replay_buffer.draw(th.arange(12)).observations
    assert stored["height"].shape == (12,) and {value.dtype for value in stored.values()} == {th.float32}


@pytest.mark.slow
@pytest.mark.usefixtures("dm_control")
def test_episodes_end_by_time() -> None:
    """After a thousand steps, and there is something to bootstrap from."""
    model = FPMD("FlowPolicy", CARTPOLE, seed=0, device="cpu", **{**FPMD_SMALL, "learning_starts": 2_000}).learn(1_010)
    steps = model.replay_buffer.transitions
    assert not steps.terminations.any() and steps.ends[:1_010].nonzero().flatten().tolist() == [999, 1_009]


@pytest.mark.usefixtures("dm_control")
def test_actions_without_bounds() -> None:
    """The bounds of ``lqr`` are 1e10, MuJoCo's number for no bounds. The advice of the message works."""
    env = make_env("dm_control/lqr-lqr_2_1-v0")
    with pytest.raises(ValueError, match="finite") as caught:
        FPMD("FlowPolicy", env)
    remedy = str(caught.value).split("bounds: ")[-1].rstrip(".")
    assert remedy.startswith("gymnasium.wrappers.TransformAction(env, ")
    bounded = eval(remedy, {"gymnasium": gym, "numpy": np, "env": env})
    FPMD("FlowPolicy", bounded, seed=0, device="cpu", **FPMD_SMALL).learn(8)


# Through the zoo.


@pytest.mark.slow
@pytest.mark.usefixtures("dm_control")
def test_the_zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """From training to a sweep with the environment's id only."""
    pytest.importorskip("rl_zoo3")
    pytest.importorskip("optuna")
    monkeypatch.chdir(tmp_path)
    entry = {"policy": "FlowPolicy", "n_timesteps": 20, "env_wrapper": "gymnasium.wrappers.FlattenObservation", **FPMD_SMALL}
    Path("flat.yml").write_text(yaml.safe_dump({CARTPOLE: entry}), "utf-8")
    del entry["env_wrapper"]
    Path("small.yml").write_text(yaml.safe_dump({"default": entry}), "utf-8")
    common = ["--algo", "fpmd", "--env", CARTPOLE, "--seed", "0", "--device", "cpu", "--verbose", "0"]
    train = [*common, "--eval-freq", "-1", "--conf-file"]

    def run(*arguments: str) -> str:
        assert main(arguments) == 0, capfd.readouterr().err
        return capfd.readouterr().out

    for run_id, file in ((1, "small.yml"), (2, "flat.yml")):
        run("train", *train, file, "--run-id", str(run_id))
        folder = Path(f"logs/fpmd/dm_control-cartpole-swingup-v0_{run_id}")
        space = FPMD.load(folder / "dm_control-cartpole-swingup-v0.zip", device="cpu").observation_space
        assert isinstance(space, spaces.Dict) if file == "small.yml" else space.shape == (5,)
        versions = yaml.safe_load((folder / "dm_control-cartpole-swingup-v0/system.yml").read_text("utf-8"))
        assert {"dm-control", "shimmy", "mujoco"} <= set(versions)
    run("enjoy", *common, "--exp-id", "1", "--no-render", "-n", "5")
    trial = ["--n-trials", "1", "--n-startup-trials", "0", "--n-evaluations", "1", "--eval-episodes", "1", "--no-optim-plots"]
    out = run("optimize", *common, "--conf-file", "small.yml", *trial)
    assert "Number of finished trials:  1" in out
    sweep = {"tasks": ["dm_control/cartpole-swingup*"], "algorithms": ["fpmd"], "seeds": 2, "output": "table"}
    Path("table.yml").write_text(yaml.safe_dump(sweep), "utf-8")
    out = run("sweep", "table.yml", "--dry-run")
    assert out.count(f"--env={CARTPOLE} ") == out.count("--env=dm_control/cartpole-swingup_sparse-v0 ") == 2


# Images.


class Clock(gym.Env):
    """A picture, with edges of any size, whose colors count the steps; so does the reward."""

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"]}  # noqa: RUF012
    observation_space, action_space = spaces.Discrete(1), spaces.Box(-1, 1, (1,))

    def __init__(self, sides: tuple[int, int] = (8, 8), render_mode: str | None = "rgb_array", length: int = 7) -> None:
        self.sides, self.render_mode, self.length = sides, render_mode, length

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[int, dict]:
        self.time = 0
        return 0, {"time": 0}

    def step(self, action: np.ndarray) -> tuple[int, float, bool, bool, dict]:
        self.time += 1
        return 0, float(self.time), False, self.time == self.length, {"time": self.time}

    def render(self) -> np.ndarray:  # type: ignore[override]
        picture = np.zeros((*self.sides, 3), dtype=np.uint8)
        picture[..., 0] = self.time
        picture[0, :, 1] = 100
        picture[:, 0, 2] = 200
        return picture


def test_frames_are_stacked_and_actions_repeated() -> None:
    """The oldest frame first, of an episode's beginning three copies; rewards are summed, and the end is not passed."""
    env = PixelObservation(Clock(), size=8)
    assert env.observation_space == spaces.Box(0, 255, (9, 8, 8), np.uint8)
    first, info = env.reset(seed=0)
    assert env.observation_space.contains(first) and info == {"time": 0}
    seen, rewards, ends = [first[::3, 4, 4].tolist()], [], []
    for _ in range(4):
        observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
        assert env.observation_space.contains(observation) and not terminated
        seen.append(observation[::3, 4, 4].tolist())
        rewards.append(reward)
        ends.append((truncated, info["time"]))
    assert seen == [[0, 0, 0], [0, 0, 2], [0, 2, 4], [2, 4, 6], [4, 6, 7]]
    assert rewards == [1 + 2, 3 + 4, 5 + 6, 7] and ends == [(False, 2), (False, 4), (False, 6), (True, 7)]
    # Rows are rows, and colors come in their order.
    assert (observation[7, 0] == 100).all() and (observation[8, :, 0] == 200).all()
    assert (observation[7, 1:] == 0).all() and (observation[8, :, 1:] == 0).all()
    assert env.reset()[0][::3, 4, 4].tolist() == [0, 0, 0]
    short = PixelObservation(Clock(), size=8, frame_stack=1, action_repeat=1)
    assert short.reset()[0].shape == (3, 8, 8) and short.step(None)[1] == 1


def test_pictures_of_another_size() -> None:
    """They are brought to size by the mean of the area that a pixel stands for."""
    observation = PixelObservation(Clock((16, 8)), size=4, frame_stack=1).reset()[0]
    assert observation.dtype == np.uint8 and observation[1].tolist() == [[25] * 4] + [[0] * 4] * 3
    assert observation[2].tolist() == [[100, 0, 0, 0]] * 4


def test_what_cannot_be_seen() -> None:
    with pytest.raises(ValueError, match="render_mode='rgb_array'"):
        PixelObservation(Clock(render_mode=None))
    for name in ("size", "frame_stack", "action_repeat"):
        with pytest.raises(ValueError, match=f"`{name}` is 0"):
            PixelObservation(Clock(), **{name: 0})
    with pytest.raises(ValueError, match=r"`camera` is 1, but .* is not an environment of dm_control"):
        PixelObservation(Clock(), camera=1)


#: In a process of its own: what renders is chosen by an environment variable before dm_control is imported.
PROGRAM = """
import json, sys
import numpy as np
from sb3_flow.cli import main
from sb3_flow.common.environments import make_env
from sb3_flow.envs.pixels import PixelObservation
assert not {"shimmy", "dm_control"} & set(sys.modules)
try:
    make_env("dm_control/cartpole-swingup-v0").unwrapped.physics.render(8, 8)
except Exception as error:
    print(error, file=sys.stderr)
    sys.exit(77)
env = PixelObservation(make_env("dm_control/cartpole-swingup-v0"), size=24)
observation = env.reset(seed=0)[0]
start = np.array(env.physics.data.qpos)
observation = env.step(env.action_space.high)[0]
data = env.physics.data
found = {"shape": observation.shape, "time": data.time, "moved": bool((data.qpos != start).any())}
before, picture = observation[3:6], env.physics.render(24, 24, camera_id=0)
found["newest"] = bool((observation[6:].transpose(1, 2, 0) == picture).all()) and bool((before != observation[6:]).any())
found["colors"] = len(np.unique(observation))
for arguments in json.loads(sys.argv[1]):
    assert main(arguments) == 0, arguments
print(json.dumps(found))
"""


@pytest.mark.nightly
@pytest.mark.usefixtures("dm_control")
def test_learning_from_pictures(tmp_path: Path) -> None:
    """The wrapper shows what the physics shows; by its name in a configuration, FPMD trains on it, and acts."""
    pytest.importorskip("rl_zoo3")
    wrapper = {"sb3_flow.envs.pixels.PixelObservation": {"size": 24, "frame_stack": 2, "action_repeat": 4}}
    entry = {"policy": "FlowPolicy", "n_timesteps": 12, "n_envs": 2, "env_wrapper": [wrapper], **FPMD_SMALL}
    (tmp_path / "small.yml").write_text(yaml.safe_dump({CARTPOLE: entry}), "utf-8")
    common = ["--algo", "fpmd", "--env", CARTPOLE, "--device", "cpu", "--verbose", "0"]
    commands = [
        ["train", *common, "--eval-freq", "-1", "--conf-file", "small.yml"],
        ["enjoy", *common, "--no-render", "-n", "2"],
    ]
    environment = {**os.environ, "MUJOCO_GL": "egl", "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(commands)], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    if process.returncode == 77:
        pytest.skip(f"nothing renders here: {process.stderr[-300:]}")
    assert process.returncode == 0, process.stderr
    found = json.loads(process.stdout.splitlines()[-1])
    assert found["shape"] == [9, 24, 24] and found["time"] == pytest.approx(0.02) and found["moved"]
    assert found["newest"] and found["colors"] > 10
    model = FPMD.load(tmp_path / "logs/fpmd/dm_control-cartpole-swingup-v0_1/dm_control-cartpole-swingup-v0", device="cpu")
    assert model.observation_space == spaces.Box(0, 255, (6, 24, 24), np.uint8) and model.policy.encoder is not None
    assert model.weight_mode == "temp" and model.n_critic_updates > 0
