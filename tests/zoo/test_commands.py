"""The commands of RL Zoo with the algorithms of this package, run with small networks."""

import contextlib
import io
import os
import pickle
import re
import shlex
import shutil
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import gymnasium as gym
import numpy as np
import pytest
import yaml
from conformance.environments import collect, maze
from python_process import PythonProcess

from sb3_flow import FQL, __version__
from sb3_flow.cli import main
from sb3_flow.common.flow_algorithm import FlowAlgorithm
from sb3_flow.fql.search import FQL_SPACE
from sb3_flow.zoo.algorithms import ALGORITHMS, SEARCH_SPACES
from sb3_flow.zoo.arguments import add_defaults, quote_values
from sb3_flow.zoo.commands import SCRIPTS
from sb3_flow.zoo.configs import config_path, read_entries
from sb3_flow.zoo.entries import find_entry
from sb3_flow.zoo.trust import parsed_values

pytest.importorskip("rl_zoo3")
pytest.importorskip("ogbench")
optuna = pytest.importorskip("optuna")

MAZE = "pointmaze-medium-singletask-task1-v0"
PENDULUM = "Pendulum-v1"
#: Numbers of the runs that tests share; other runs take the next free numbers, in any order.
RUN = 30
ROOT = Path(__file__).parents[2]


class Result(NamedTuple):
    code: int
    out: str
    err: str


def run(*arguments: object, folder: Path | None = None) -> Result:
    """Run a command in this process, from a folder."""
    out, err, before = io.StringIO(), io.StringIO(), Path.cwd()
    os.chdir(folder or before)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main([str(argument) for argument in arguments])
    except SystemExit as error:
        code = int(error.code or 0)
    finally:
        os.chdir(before)
    return Result(code, out.getvalue(), err.getvalue())


def succeed(*arguments: object, folder: Path | None = None) -> str:
    result = run(*arguments, folder=folder)
    assert result.code == 0, result.err
    return result.out


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, damaged data, and configurations with small networks."""
    folder = tmp_path_factory.mktemp("zoo")
    data = collect(maze, rows=200)
    np.savez(folder / "data.npz", **data)
    np.savez(folder / "huge.npz", **{**data, "rewards": np.full(200, 1e30)})
    small = {"policy": "FlowPolicy", "batch_size": 16, "flow_steps": 2, "policy_kwargs": {"net_arch": [16]}}
    entries = {
        MAZE: {**small, "n_timesteps": 60, "dataset": str(folder / "data.npz")},
        PENDULUM: {**small, "n_timesteps": 80, "learning_starts": 20},
    }
    (folder / "small.yml").write_text(yaml.safe_dump(entries), "utf-8")
    return folder


@pytest.fixture(scope="module")
def train(workdir: Path) -> Callable[..., str]:
    """Train a small model: ``train(env, *further arguments)``."""

    def call(env: str, *arguments: object) -> str:
        options = ["--algo", "fql", "--env", env, "--conf-file", "small.yml", "--device", "cpu", "--seed", 1]
        options += ["--env-kwargs", "max_episode_steps:20", "--num-threads", 1, "--verbose", 0]
        return succeed(*arguments[:1], *options, *arguments[1:], folder=workdir)

    return call


@pytest.fixture(scope="module")
def offline(workdir: Path, train: Callable[..., str]) -> Path:
    """The folder of an offline run on the maze."""
    # Explicit number: other tests may have created runs before.
    train(MAZE, "train", "--eval-freq", 20, "--eval-episodes", 2, "--eval-samplers", "bc_flow", "--run-id", RUN)
    return workdir / "logs" / "fql" / f"{MAZE}_{RUN}"


@pytest.fixture(scope="module")
def online(workdir: Path, train: Callable[..., str]) -> Path:
    """The folder of an online run on the pendulum."""
    often = ["--eval-freq", 40, "--eval-episodes", 2, "--save-freq", 40]
    train(PENDULUM, "train", *often, "--eval-samplers", "bc_flow", "--run-id", RUN)
    return workdir / "logs" / "fql" / f"{PENDULUM}_{RUN}"


@pytest.fixture(scope="module")
def study(workdir: Path, train: Callable[..., str]) -> Any:
    """A study of two trials, with its log and the models of its trials."""
    trials = ["--n-trials", 2, "--n-evaluations", 2, "--eval-episodes", 1, "--optimization-log-path", "trials"]
    before = {*workdir.glob("logs/fql/*/")}
    train(MAZE, "optimize", *trials, "--study-name", "maze", "--storage", "study.log", "--no-optim-plots")
    assert {*workdir.glob("logs/fql/*/")} <= before, "`enjoy` would take it as the latest run"
    return load_study(workdir)


def load_study(workdir: Path, name: str = "maze", file: str = "study.log") -> Any:
    backend = optuna.storages.journal.JournalFileBackend(str(workdir / file))
    return optuna.load_study(study_name=name, storage=optuna.storages.JournalStorage(backend))


def config_of(folder: Path) -> dict[str, Any]:
    env = re.sub(r"_\d+$", "", folder.name)
    loaded: dict[str, Any] = yaml.load((folder / env / "config.yml").read_text("utf-8"), yaml.UnsafeLoader)
    return loaded


# Training.


def test_an_offline_run_has_success_rates(offline: Path, workdir: Path) -> None:
    evaluations = np.load(offline / "evaluations.npz")
    assert evaluations["timesteps"].tolist() == [20, 40, 60]
    assert evaluations["successes"].shape == evaluations["results"].shape == (3, 2)
    assert (offline / f"{MAZE}.zip").is_file() and (offline / "best_model.zip").is_file()
    config = config_of(offline)
    assert config["dataset"] == str(workdir / "data.npz") and config["policy_kwargs"] == {"net_arch": [16]}
    assert FQL.load(offline / f"{MAZE}.zip", device="cpu").n_offline_updates == 60


def test_an_online_run_collects(online: Path) -> None:
    model = FQL.load(online / f"{PENDULUM}.zip", device="cpu")
    assert (model.n_env_steps, model.n_offline_updates) == (80, 0)
    assert "successes" not in np.load(online / "evaluations.npz")
    assert len((online / "0.monitor.csv").read_text("utf-8").splitlines()) == 2 + 4  # episodes of 20 steps


def test_heads_are_evaluated_as_algorithms_of_their_own(online: Path, offline: Path) -> None:
    for folder in (online, offline):
        samplers = np.load(folder.parents[1] / "fql-bc_flow" / folder.name / "evaluations.npz")
        usual = np.load(folder / "evaluations.npz")
        assert samplers["timesteps"].tolist() == usual["timesteps"].tolist()


def test_data_is_named_on_the_command_line(workdir: Path, train: Callable[..., str]) -> None:
    options = ["--eval-freq", -1, "-n", 2, "--checkpoint-freq", 0, "--run-id", 9]
    train(
        MAZE, "train", *options, "-params", f"dataset:{workdir / 'data.npz'}", "q_agg:min", "alpha:7", "learning_rate:lin_1e-4"
    )
    config = config_of(workdir / "logs" / "fql" / f"{MAZE}_9")
    assert (config["q_agg"], config["alpha"], config["learning_rate"]) == ("min", 7, "lin_1e-4")


@pytest.mark.parametrize("name", ["td3_offline", "sac_offline"])
def test_baselines_train_on_named_data(workdir: Path, name: str) -> None:
    options = ["--algo", name, "--env", MAZE, "-n", 5, "--eval-freq", 5, "--eval-episodes", 1, "--env-kwargs"]
    settings = ["dataset:data.npz", "policy_kwargs:dict(net_arch=[16])", "batch_size:8"]
    succeed("train", *options, "max_episode_steps:20", "-params", *settings, "--device", "cpu", folder=workdir)
    assert np.load(workdir / "logs" / name / f"{MAZE}_1" / "evaluations.npz")["successes"].shape == (1, 1)


def test_progress_without_a_terminal(tmp_path: Path) -> None:
    """It is printed as lines, which do not disturb a log."""
    text = f"{PENDULUM}: {{policy: FlowPolicy, n_timesteps: 6, policy_kwargs: {{net_arch: [4]}}}}"
    (tmp_path / "c.yml").write_text(text, "utf-8")
    options = ["--algo", "fql", "--env", PENDULUM, "--conf-file", "c.yml", "--eval-freq", "-1", "--device", "cpu"]
    assert "FQL: 6 of 6 timesteps (100 %)" in succeed("train", *options, folder=tmp_path)
    assert "of 6 timesteps" not in succeed("train", *options, "--verbose", "0", folder=tmp_path)


def test_our_files_are_found_by_name(tmp_path: Path) -> None:
    arguments = ["train", "--algo", "fql", "--env", MAZE, "--conf-file", "fql_small", "-params", "dataset:nothing.npz"]
    result = run(*arguments, folder=tmp_path)
    assert result.code == 2 and "nothing.npz" in result.err
    assert "zoo_configs/fql_small.yml" in result.out.replace(os.sep, "/") and "('n_steps', 20)" in result.out


@pytest.mark.parametrize("algo", ["fql", "td3_offline", "sac"])
def test_a_run_keeps_the_entry_that_a_pattern_gave_it(workdir: Path, algo: str) -> None:
    """The saved configuration contains the resolved values, so that loading needs no pattern; also for RL Zoo's algorithms."""
    policy = "FlowPolicy" if algo == "fql" else "MlpPolicy"
    entry: dict[str, Any] = {"policy": policy, "n_timesteps": 4, "batch_size": 8, "gamma": "= 3 / 4"}
    entry |= {"policy_kwargs": {"net_arch": [8]}} | ({} if algo == "sac" else {"dataset": f"{workdir}/dat{{*}}.npz"})
    name = MAZE.replace("-task", "-t*sk")
    (workdir / "pattern.yml").write_text(yaml.safe_dump({"default": {"gamma": 0.1}, name: entry}), "utf-8")
    options = ["--algo", algo, "--env", MAZE, "--conf-file", "pattern.yml", "--device", "cpu", "--eval-freq", -1]
    options += ["--run-id", 77]
    output = succeed("train", *options, "-params", "tau:0.5", folder=workdir)
    config = dict(config_of(workdir / "logs" / algo / f"{MAZE}_77"))
    del config["env_wrapper"]
    config["policy_kwargs"].pop("use_sde", None)  # of RL Zoo
    expected = {**entry, "gamma": 0.75, "tau": 0.5} | ({} if algo == "sac" else {"dataset": f"{workdir}/data.npz"})
    assert config == expected and f"Entry {name!r} of pattern.yml" in output
    assert "has finished" in succeed("train", *options, "-params", "tau:0.5", "--resume", folder=workdir)
    trusted = ["--trusted"] if algo == "sac" else []  # Stable-Baselines3 writes pickles
    enjoy = ["enjoy", "--algo", algo, "--env", MAZE, "--exp-id", 77, "-f", "logs", "--no-render", "-n", 5]
    succeed(*enjoy, *trusted, folder=workdir)


@pytest.mark.slow
def test_arguments_under_stable_baselines3_names(workdir: Path, train: Callable[..., str]) -> None:
    """What the constructor accepts: an activation by its class, and arguments that are not supported, but switched off."""
    options = ["--eval-freq", -1, "-n", 2, "--run-id", 79]
    kwargs = "policy_kwargs:dict(net_arch=[8, 8], activation_fn=nn.ReLU, use_sde=False, log_std_init=None)"
    others = [kwargs, "use_sde:False", "replay_buffer_class:None", "policy:sb3_flow.fql.FQLPolicy"]
    for arguments in (others[:-1], others):
        train(MAZE, "train", *options, "-params", *arguments)
        model = FQL.load(workdir / "logs" / "fql" / f"{MAZE}_{options[-1]}" / f"{MAZE}.zip", device="cpu")
        assert (model.policy.net_arch, model.policy.activation) == ([8, 8], "relu")
        assert "has finished" in train(MAZE, "train", *options, "--resume", "-params", *arguments)
        enjoy = ["--algo", "fql", "--env", MAZE, "--exp-id", options[-1], "--no-render", "-n", 5]
        succeed("enjoy", *enjoy, folder=workdir)
        options[-1] = 80


# enjoy.


@pytest.fixture
def acted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """The sampler and the value of ``deterministic`` of each call of ``predict``."""
    seen: list[tuple[str, bool]] = []
    predict = FlowAlgorithm.predict

    def watched(
        model: Any, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> Any:
        seen.append((model.policy.sampler, deterministic))
        return predict(model, observation, state, episode_start, deterministic)

    monkeypatch.setattr(FlowAlgorithm, "predict", watched)
    return seen


def test_enjoy_acts_as_training_evaluated(offline: Path, workdir: Path, acted: list[tuple[str, bool]]) -> None:
    options = ["--algo", "fql", "--env", MAZE, "--exp-id", RUN, "-n", 40, "--no-render", "--device", "cpu"]
    out = succeed("enjoy", *options, folder=workdir)  # the folder is where `train` writes
    assert "2 Episodes" in out and re.search(r"Success rate: \d+\.\d+%", out)
    assert acted == [("one_step", False)] * 40
    acted.clear()
    succeed("enjoy", *options, "--deterministic", "-f", "logs", "--load-best", folder=workdir)
    assert acted == [("one_step", True)] * 40


def test_training_evaluates_by_sampling(train: Callable[..., str], acted: list[tuple[str, bool]]) -> None:
    options = ["-n", 2, "--eval-freq", 2, "--eval-episodes", 1, "--checkpoint-freq", 0, "--run-id", 8]
    train(MAZE, "train", *options, "--eval-samplers", "bc_flow")  # offline: only evaluations call `predict`
    assert acted == [*[("one_step", False)] * 20, *[("bc_flow", False)] * 20]


def test_enjoy_checkpoints_of_an_online_run(online: Path, workdir: Path) -> None:
    options = ["--algo", "fql", "--env", PENDULUM, "-n", 20, "--no-render", "--device", "cpu"]
    assert "rl_model_40_steps.zip" in succeed("enjoy", *options, "--load-checkpoint", 40, folder=workdir)
    assert "Mean reward" in succeed("enjoy", *options, folder=workdir)


class Drawn(gym.Env):
    """Renders without a display: an image that gets brighter."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 10}
    observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.time = 0
        return np.zeros(2, np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.time += 1
        return np.zeros(2, np.float32), 0.0, False, self.time >= 10, {}

    def render(self) -> np.ndarray:
        return np.full((32, 32, 3), 20 * self.time, np.uint8)


class Bright(Drawn):
    """Records its argument."""

    made: ClassVar[list[int]] = []

    def __init__(self, render_mode: str | None = None, brightness: int = 0) -> None:
        super().__init__(render_mode)
        self.made.append(brightness)


@pytest.mark.slow
def test_the_arguments_of_the_environment_are_those_of_the_configuration_everywhere(tmp_path: Path) -> None:
    pytest.importorskip("moviepy")
    gym.register("Bright-v0", Bright)
    settings = "policy: FlowPolicy, policy_kwargs: {net_arch: [8]}, n_timesteps: 4, learning_starts: 2, batch_size: 2"
    (tmp_path / "bright.yml").write_text(f"Bright-v0: {{{settings}, env_kwargs: {{brightness: 7}}}}", "utf-8")
    options = ["--algo", "fql", "--env", "Bright-v0"]
    training = [*options, "--conf-file", "bright.yml", "--eval-freq", 2, "--eval-episodes", 1]
    commands: list[list[Any]] = [
        ["train", *training],
        ["optimize", *training, "--n-trials", 1, "--n-evaluations", 1, "--no-optim-plots"],
        ["enjoy", *options, "--exp-id", 1, "-n", 2, "--no-render"],
        ["record-video", *options, "--exp-id", 1, "-n", 2, "-o", "videos", "--no-render"],
    ]
    try:
        for command in commands:
            Bright.made.clear()
            succeed(*command, folder=tmp_path)
            assert Bright.made and set(Bright.made) == {7}, command
        Bright.made.clear()
        succeed(*commands[0], "--eval-env-kwargs", "brightness:3", folder=tmp_path)
        assert set(Bright.made) == {3, 7}
    finally:
        del gym.registry["Bright-v0"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "content", "commands"),
    [
        ("config.yml", "", ("enjoy", "train")),
        ("config.yml", "[1]", ("enjoy", "train", "report")),
        ("config.yml", "a: [", ("enjoy", "train", "report")),
        ("args.yml", "", ("enjoy",)),
        ("args.yml", "[1]", ("enjoy", "train", "report")),
        ("system.yml", "[1]", ("train", "report")),
        ("system.yml", "a: [", ("train", "report")),
        ("../evaluations.npz", "x", ("report", "plot")),
    ],
)
def test_damaged_files_of_a_run_are_named(
    online: Path, workdir: Path, tmp_path: Path, file: str, content: str, commands: tuple[str, ...]
) -> None:
    folder = tmp_path / online.relative_to(workdir)
    shutil.copytree(online, folder)
    (folder / PENDULUM / file).write_text(content, "utf-8")
    options = ["--algo", "fql", "--env", PENDULUM]
    arguments = {
        "enjoy": [*options, "--exp-id", RUN, "-n", 2, "--no-render"],
        "train": [*options, "--conf-file", workdir / "small.yml", "--run-id", RUN, "--resume"],
        "report": ["logs"],
        "plot": ["-a", "fql", "-e", PENDULUM, "-f", "logs", "--no-display"],
    }
    for command in commands:
        ended = run(command, *arguments[command], folder=tmp_path)
        assert ended.code == 2 and Path(file).name in ended.err and len(ended.err.strip().splitlines()) == 1, ended


def test_arguments_that_enjoy_passes_to_the_environment_are_checked(online: Path, workdir: Path) -> None:
    options = ["--algo", "fql", "--env", PENDULUM, "--exp-id", RUN, "-n", 2, "--no-render", "--env-kwargs"]
    for given, message in (
        ("g:high", "--env-kwargs: `env_kwargs.g` is 'high'; it must be a number"),
        ("gg:1", "--env-kwargs: `env_kwargs` is .*unexpected keyword argument 'gg'\n"),
    ):
        ended = run("enjoy", *options, given, folder=workdir)
        assert ended.code == 2 and re.search(message, ended.err), ended


@pytest.mark.parametrize("key", ["frame_stack", "vec_env_wrapper", "env_kwargs"])
def test_a_key_without_a_value_is_the_default(key: str, tmp_path: Path) -> None:
    settings = "policy: FlowPolicy, policy_kwargs: {net_arch: [8]}, n_timesteps: 2, learning_starts: 2"
    (tmp_path / "small.yml").write_text(f"{PENDULUM}: {{{settings}, {key}: null}}", "utf-8")
    options = ["--algo", "fql", "--env", PENDULUM]
    succeed("train", *options, "--conf-file", "small.yml", "--eval-freq", -1, folder=tmp_path)
    succeed("enjoy", *options, "-n", 2, "--no-render", folder=tmp_path)


@pytest.mark.slow
def test_the_policy_of_a_run_is_exported(offline: Path, workdir: Path) -> None:
    pytest.importorskip("onnxscript")
    out = succeed("export", "--algo", "fql", "--env", MAZE, "--exp-id", RUN, "-o", "maze", "--load-best", folder=workdir)
    assert out.endswith("best_model.zip to maze.onnx\n")  # the name of the file, with the suffix that was added
    model = FQL.load(offline / "best_model.zip", device="cpu")
    observations = np.zeros((2, *model.observation_space.shape), np.float32)
    exported = pytest.importorskip("sb3_flow.deploy").OnnxPolicy(workdir / "maze.onnx")
    actions = exported.predict(observations, deterministic=True)[0]
    np.testing.assert_allclose(actions, model.predict(observations, deterministic=True)[0], rtol=1e-5, atol=1e-5)


def test_a_video_is_recorded(workdir: Path, acted: list[tuple[str, bool]]) -> None:
    pytest.importorskip("moviepy")
    gym.register("Drawn-v0", Drawn)
    try:
        (workdir / "drawn.yml").write_text((workdir / "small.yml").read_text("utf-8").replace(PENDULUM, "Drawn-v0"), "utf-8")
        options = ["--algo", "fql", "--env", "Drawn-v0"]
        training = ["--conf-file", "drawn.yml", "-n", 5, "--eval-freq", -1, "--device", "cpu"]
        succeed("train", *options, *training, folder=workdir)
        succeed("record-video", *options, "-n", 12, "-o", "videos", "--no-render", folder=workdir)
    finally:
        del gym.registry["Drawn-v0"]
    (video,) = (workdir / "videos").glob("*.mp4")
    assert b"ftyp" in video.read_bytes()[:16]  # signature of the format
    assert acted == [("one_step", False)] * 12


# Hyperparameters.


@pytest.mark.slow
def test_a_trial_is_trained_again_with_what_it_had(study: Any, workdir: Path, train: Callable[..., str]) -> None:
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "COMPLETE"]
    for trial in study.trials:
        expected = FQL_SPACE.convert(trial.params)
        options = ["--study-name", "maze", "--storage", "study.log", "--trial-id", trial.number]
        train(MAZE, "train", *options, "-n", 2, "--eval-freq", -1, "--run-id", 20 + trial.number)
        folder = workdir / "logs" / "fql" / f"{MAZE}_{20 + trial.number}"
        assert {key: config_of(folder)[key] for key in expected} == expected
        # The model of the trial, saved by the study, and the one that was trained again.
        for path in (workdir / "trials" / f"trial_{trial.number}" / "best_model.zip", folder / f"{MAZE}.zip"):
            model = FQL.load(path, device="cpu")
            trained = {key: getattr(model, key) for key in expected if key not in ("learning_rate", "flow_steps")}
            assert trained == {key: expected[key] for key in trained}
            assert model.policy.flow_steps == expected["flow_steps"]
            assert model.lr_schedule(1.0) == pytest.approx(expected["learning_rate"])
            assert model.policy.net_arch == [16]  # the search does not change policy_kwargs


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("name", "sampler"),
    [("gfp", "vabc"), *((name, "bc_flow") for name in ("qam", "qam_edit", "qam_fql"))],
)
def test_other_algorithms_are_tuned_trained_and_watched(workdir: Path, name: str, sampler: str) -> None:
    options = ["--algo", name, "--env", MAZE, "--conf-file", "small.yml", "--device", "cpu", "--seed", 1, "-n", 30]
    options += ["--env-kwargs", "max_episode_steps:20", "--num-threads", 1, "--verbose", 0, "--eval-episodes", 1]
    study = ["--study-name", name, "--storage", "others.log"]
    trials = ["--n-trials", 2, "--n-evaluations", 1, "--n-startup-trials", 0, "--no-optim-plots"]
    both = ["-params", "offline_steps:20", "learning_starts:2"]  # offline updates, then online steps
    succeed("optimize", *options, *study, *trials, *both, folder=workdir)
    trial = load_study(workdir, name, "others.log").trials[1]
    assert trial.state.name == "COMPLETE"
    training = ["--eval-freq", 15, "--eval-samplers", sampler, "--trial-id", 1, "--run-id", 5]
    succeed("train", *options, *study, *training, *both, folder=workdir)
    folder = workdir / "logs" / name / f"{MAZE}_5"
    model = ALGORITHMS[name].load(folder / f"{MAZE}.zip", device="cpu")
    found = SEARCH_SPACES[name].convert(trial.params)
    del found["learning_rate"]  # converted to a schedule
    assert {key: getattr(model, key) for key in found} == found
    assert (model.n_offline_updates, model.n_env_steps) == (20, 10)
    assert np.load(workdir / "logs" / f"{name}-{sampler}" / folder.name / "evaluations.npz")["successes"].shape == (2, 1)
    watching = ["--algo", name, "--env", MAZE, "--exp-id", 5, "-n", 20, "--no-render", "--device", "cpu"]
    assert "Success rate: " in succeed("enjoy", *watching, folder=workdir)


@pytest.mark.slow
def test_a_trial_that_is_not_finite_is_pruned(study: Any, workdir: Path, train: Callable[..., str]) -> None:
    before = len(study.trials)
    options = ["--n-trials", 2, "--study-name", "maze", "--storage", "study.log", "--no-optim-plots"]
    out = train(MAZE, "optimize", *options, "-params", f"dataset:{workdir / 'huge.npz'}")
    states = [trial.state.name for trial in load_study(workdir).trials]
    assert states[before:] == ["PRUNED", "PRUNED"]
    assert out.count("is not finite") == 2


@pytest.mark.slow
def test_processes_share_a_study(workdir: Path) -> None:
    command = ["-m", "sb3_flow.zoo", "optimize", "--algo", "fql", "--env", MAZE, "--conf-file", "small.yml"]
    command += ["--n-trials", "1", "--n-evaluations", "1", "--eval-episodes", "1", "-n", "20", "--study-name", "shared"]
    command += ["--storage", "shared.log", "--no-optim-plots", "--env-kwargs", "max_episode_steps:20", "--device", "cpu"]
    workers = [PythonProcess(*command, cwd=workdir) for _ in range(2)]
    assert [worker.wait().returncode for worker in workers] == [0, 0]
    trials = load_study(workdir, "shared", "shared.log").trials
    assert [trial.number for trial in trials] == [0, 1]
    assert all(trial.state.is_finished() for trial in trials)
    assert load_study(workdir, "shared", "shared.log").user_attrs["flow_steps"] == "2"


@pytest.mark.slow
def test_the_second_process_finds_the_configuration(workdir: Path, train: Callable[..., str]) -> None:
    # RL Zoo writes it after it has created the study; a reader in between finds only the study.
    backend = optuna.storages.journal.JournalFileBackend(str(workdir / "early.log"))
    study = optuna.create_study(study_name="early", storage=optuna.storages.JournalStorage(backend), direction="maximize")
    study.set_user_attr("command", "of the first process")
    options = ["--n-trials", 1, "--n-evaluations", 1, "--eval-episodes", 1, "-n", 2, "--study-name", "early"]
    train(MAZE, "optimize", *options, "--storage", "early.log", "--no-optim-plots", "-params", "normalize_q_loss:True")
    (trial,) = load_study(workdir, "early", "early.log").trials
    assert trial.distributions["alpha"].high == 10


@pytest.mark.parametrize("file", ["paper", "offline_methods_paper"])
def test_full_size_sweeps_train_with_published_settings(file: str, tmp_path: Path) -> None:
    commands = succeed("sweep", ROOT / "results" / file / "sweep.yml", "--dry-run", folder=tmp_path).splitlines()
    seen, read = set(), cache(read_entries)
    for words in (shlex.split(line) for line in commands if line.startswith("sb3-flow ")):
        option = dict(word.split("=", 1) for word in words if word.startswith("--") and "=" in word)
        params = {word.split(":")[0] for word in words[words.index("-params") + 1 :]} if "-params" in words else set()
        cell = option["--algo"], option["--env"], option.get("--conf-file", option["--algo"])
        if cell not in seen:  # once per cell, for all seeds
            seen.add(cell)
            # From the entry of the environment, not from `default`; or completely from the sweep.
            assert find_entry(read(str(config_path(cell[2]))), cell[1]) or params >= {"alpha", "dataset", "normalize_q_loss"}
    assert len(seen) >= 50


# Figures.


def test_success_rates_are_plotted(offline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "Agg")
    for algorithm, rates in (("fql", [0.0, 0.5, 1.0]), ("fql-bc_flow", [0.0, 0.0, 0.5])):
        run_folder = tmp_path / "logs" / algorithm / f"{MAZE}_1"
        run_folder.mkdir(parents=True)
        arrays = dict(np.load(offline.parents[1] / algorithm / offline.name / "evaluations.npz"))
        arrays["successes"] = np.array([[rate == 1, rate >= 0.5] for rate in rates])
        np.savez(run_folder / "evaluations.npz", **arrays)
    options = ["-a", "fql", "fql-bc_flow", "-e", MAZE, "-f", "logs", "--no-display", "--no-million"]
    out = succeed("plot", *options, "-k", "successes", "-o", "results", folder=tmp_path)
    assert "FQL-BC_FLOW" in out
    curves = pickle.loads((tmp_path / "results.pkl").read_bytes())[MAZE]
    assert curves["FQL-logs"]["mean"].tolist() == [0.0, 0.5, 1.0]
    assert curves["FQL-BC_FLOW-logs"]["mean"].tolist() == [0.0, 0.0, 0.5]
    with pytest.warns(UserWarning, match=f"none of qam on {MAZE} in logs"):
        succeed("plot", *options, "-a", "fql", "qam", folder=tmp_path)
    none = run("plot", *options, "-e", "Pendulum-v1", folder=tmp_path)
    assert none.code == 2 and "none of fql on Pendulum-v1 in logs, fql-bc_flow on Pendulum-v1 in logs" in none.err
    single = tmp_path / "logs" / "qam" / f"{MAZE}_1"
    single.mkdir(parents=True)
    np.savez(single / "evaluations.npz", **{key: values[:1] for key, values in arrays.items()})
    one = run("plot", *options, "-a", "qam", folder=tmp_path)
    assert one.code == 2 and "two evaluations or more" in one.err
    np.savez(single / "evaluations.npz", **{**arrays, "results": arrays["results"][:, :1]})
    one = run("plot", *options, "-a", "qam", folder=tmp_path)
    assert one.code == 2 and f"one episode: qam on {MAZE} in logs. Train with `--eval-episodes 5`" in one.err
    shutil.copytree(single, single.with_name(f"{MAZE}_2"))
    with pytest.warns(UserWarning, match="one episode: qam on .* The table shows 0 there"):
        succeed("plot", *options, "-a", "qam", folder=tmp_path)
    (single / "evaluations.npz").write_text("damaged")
    damaged = run("plot", *options, "-a", "qam", folder=tmp_path)
    assert damaged.code == 2 and "evaluations.npz cannot be read: it is damaged" in damaged.err
    wrong = run("plot", *options, "-k", "nothing", folder=tmp_path)
    assert wrong.code == 2 and "nothing" in wrong.err
    import matplotlib.pyplot as plt

    figures = plt.get_fignums()
    plt.close("all")
    assert figures  # at least one figure was drawn


def test_options_with_which_plots_would_be_empty_or_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """RL Zoo's scripts show zeros or nothing, or raise an error of NumPy."""
    monkeypatch.setenv("MPLBACKEND", "Agg")
    for number, episodes in ((1, 40), (2, 7)):
        run_folder = tmp_path / "logs" / "fql" / f"{PENDULUM}_{number}"
        run_folder.mkdir(parents=True)
        np.savez(run_folder / "evaluations.npz", timesteps=[10, 20], results=np.ones((2, 3)), ep_lengths=np.ones((2, 3)))
        rows = "".join(f"-1.0,200,{time}.0\n" for time in range(episodes))
        (run_folder / "0.monitor.csv").write_text(f'#{{"t_start": 0.0, "env_id": "{PENDULUM}"}}\nr,l,t\n{rows}', "utf-8")
    evaluations = ["plot", "-a", "fql", "-e", PENDULUM, "-f", "logs", "--no-display"]
    episodes_of = ["plot-train", "-a", "fql", "-e", PENDULUM, "-f", "logs"]
    wrong = {
        ("-l", "A", "B"): "-l has 2 labels, and -f 1 folders",
        ("-max", "9"): f"-max is 9 (default: 2000000), but the first evaluation of fql on {PENDULUM} in logs is at 10",
        ("-k", "success"): f"-k is success, but fql on {PENDULUM} in logs has results, ep_lengths",
        ("-w", "0"): "-w is 0",
        ("-w", "50"): "a curve needs 50 episodes, its window, and the runs on",
        ("-e", "Reacher-v5"): "logs/fql has no episodes of training on Reacher-v5",
        ("-a", "FQL"): "There is no folder logs/FQL",
    }
    for options, message in wrong.items():
        ended = run(*(evaluations if options[0] in ("-l", "-max", "-k") else episodes_of), *options, folder=tmp_path)
        assert ended.code == 2 and message in ended.err, options
    for options in (["-l", "A"], ["-max", "10"], ["-k", "ep_lengths"]):
        succeed(*evaluations, *options, folder=tmp_path)
    with pytest.warns(UserWarning, match=f"no curve of {PENDULUM}_2, with fewer episodes than the window, 20"):
        succeed(*episodes_of, "-w", "20", folder=tmp_path)
    succeed(*evaluations, "-o", "results", folder=tmp_path)
    nothing = run("plot-from-file", "-i", "results.pkl", "--trusted", "-skip", PENDULUM, folder=tmp_path)
    assert nothing.code == 2 and "No environment is left to plot" in nothing.err


# Errors.


def test_the_version() -> None:
    assert succeed("--version") == f"sb3_flow {__version__}\n"


def test_the_latest_run_has_no_model(tmp_path: Path) -> None:
    """As after a crash; the message says which runs have one."""
    for run_id in (1, 2, 10, 11):
        run_folder = tmp_path / "logs" / "fql" / f"{PENDULUM}_{run_id}"
        (run_folder / PENDULUM).mkdir(parents=True)
        if run_id in (2, 10):
            (run_folder / f"{PENDULUM}.zip").touch()
    for command in ("enjoy", "export", "record-video", "push-to-hub"):
        hub = ["-orga", "me"] if command == "push-to-hub" else []
        ended = run(command, "--algo", "fql", "--env", PENDULUM, "-f", "logs", *hub, folder=tmp_path)
        assert ended.code == 2 and "Runs that have one: --exp-id 2, --exp-id 10." in ended.err


RESCALE = "gymnasium.wrappers.RescaleAction"
ENTRY = "{policy: FlowPolicy, n_timesteps: 5"
WRONG = [
    (["--env", PENDULUM, "-params", "alhpa:1"], "", ["-params: FQL has no argument `alhpa`", "did you mean `alpha`?"]),
    (["--env", PENDULUM], f"{PENDULUM}: {ENTRY}, bacth_size: 3}}", ["conf.yml, entry 'Pendulum-v1'", "`batch_size`?"]),
    (["--env", PENDULUM], f"default: {ENTRY}, bacth_size: 3}}", ["conf.yml, entry 'default'", "`batch_size`?"]),
    (["--env", PENDULUM], f"{PENDULUM}: {ENTRY}, zzz: 3}}", ["FQL has no argument `zzz`; expected one of: ", "alpha, b"]),
    (["--env", PENDULUM], f"{PENDULUM}: {ENTRY}, policy_kwargs: {{net_arhc: [8]}}}}", ["`policy_kwargs.net_arch`?"]),
    (["--env", PENDULUM], f"{PENDULUM}: {ENTRY}, policy_kwargs: 'dict(net_arhc=[8])'}}", ["`policy_kwargs.net_arch`?"]),
    (["--env", PENDULUM, "-params", "policy_kwargs:dict(n_critic=3)"], "", ["-params: ", "`policy_kwargs.n_critics`?"]),
    (
        ["--env", PENDULUM],
        f"{PENDULUM}: {ENTRY}, policy_kwargs: 'dict(a=nothing)'}}",
        ["the class nothing is not accepted", "in YAML"],
    ),
    (["--env", PENDULUM], f"{PENDULUM}: {{n_timesteps: 5}}", ["conf.yml, entry 'Pendulum-v1'", "`policy` is missing"]),
    (["--env", PENDULUM, "-n", "5"], f"{PENDULUM}: {{policy: FlowPolicy}}", ["`n_timesteps` is missing"]),
    (["--env", PENDULUM], "a: [b", ["conf.yml is not valid YAML", "line 1"]),
    (["--env", PENDULUM], "- a", ["conf.yml has no entries"]),
    (["--env", PENDULUM], f"{PENDULUM}: 3", ["conf.yml, entry 'Pendulum-v1'", "found 3"]),
    (["--env", PENDULUM], "Other-v0: {policy: FlowPolicy}", ["Hyperparameters not found", "conf.yml"]),
    (["--env", PENDULUM], f"Pend*-v1: {ENTRY}, bacth_size: 3}}", ["sb3-flow: conf.yml, entry 'Pend*-v1': ", "`batch_size`?"]),
    (["--env", PENDULUM], f"Pend*: {ENTRY}}}\n'*-v1': {ENTRY}}}", ["conf.yml: `Pend*` and `*-v1` match Pendulum-v1"]),
    (
        ["--env", PENDULUM],
        f"{PENDULUM}: {ENTRY}, dataset: 'a{{*}}'}}",
        ["conf.yml: entry 'Pendulum-v1': {*} in a value needs a name"],
    ),
    (["--env", PENDULUM], f"Pend*: {ENTRY}, alpha: '= 1 + 1'}}", ["conf.yml: entry 'Pend*': '= 1 + 1' is not a formula"]),
    (["--env", PENDULUM, "--conf-file", "absent.yml"], "", ["--conf-file absent.yml does not exist", "fql_small"]),
    (["--env", PENDULUM, "--conf-file", "fql_smal"], "", ["--conf-file fql_smal does not exist", "fql_small"]),
    (["--env", "Pendulun-v1"], "", ["no environment 'Pendulun-v1'; did you mean 'Pendulum-v1'?"]),
    (["--env", MAZE, "-params", "dataset:absent.npz"], "", ["absent.npz"]),
    (["--env", MAZE, "-params", "dataset:pointmaze-medium-stitch-v0"], "", ["sb3-flow datasets collect pointmaze-medium"]),
    (["--env", PENDULUM, "-params", "alpha"], "", ["-params alpha: expected NAME:VALUE"]),
    (["--env", PENDULUM, "--trial-id", "0"], "", ["--storage and --study-name"]),
    (["--env", PENDULUM, "--trial-id", "7", "--study-name", "a", "--storage", "no.log"], "", ["no trial 7", "'a'"]),
    (["--env", PENDULUM, "-n", "2", "--eval-samplers", "nothing"], "", ["nothing", "bc_flow"]),
    (
        ["--env", PENDULUM, "--algo", "sac", "-n", "2", "--eval-samplers", "bc_flow"],
        "",
        ["SAC has no samplers, so `bc_flow` cannot be evaluated"],
    ),
    (["--env", PENDULUM, "-uuid", "--run-id", "3"], "", ["-uuid has no effect with --run-id or --seeds"]),
    (["--env", PENDULUM, "--uuid", "--seeds", "0", "1"], "", ["-uuid has no effect with --run-id or --seeds"]),
    (["--env", PENDULUM, "--algo", "nothing"], "", ["There is no algorithm 'nothing'", "fql"]),
    (["--env", PENDULUM, "-params", "seed:3"], "", ["-params: `seed` is an option of the command", "pass --seed."]),
    (["--env", PENDULUM, "-params", "tensorboard_log:tb"], "", ["-params: `tensorboard_log` is", "pass --tensorboard-log."]),
    (["--env", PENDULUM], f"{PENDULUM}: {ENTRY}, device: cpu}}", ["conf.yml, entry 'Pendulum-v1': `device` is", "--device."]),
    (["--env", PENDULUM, "--algo", "sac", "-params", "verbose:0"], "", ["-params: `verbose` is an option", "--verbose."]),
    (
        ["--env", PENDULUM, "-params", f"env_wrapper:{RESCALE}"],
        "",
        [f"-params: `env_wrapper` has '{RESCALE}': missing a required argument: 'min_action'. Write {{'{RESCALE}': {{"],
    ),
    (
        ["--env", PENDULUM],
        f"{PENDULUM}: {ENTRY}, env_wrapper: [{{{RESCALE}: {{min_action: -1, max_action: 1, mid: 0}}}}]}}",
        [f"`env_wrapper` has '{RESCALE}': got an unexpected keyword argument 'mid'"],
    ),
    (["--env", PENDULUM], f"{PENDULUM}: {ENTRY}, env_wrapper: {{{RESCALE}: 1}}}}", ["1; its arguments must be a dictionary"]),
    (
        ["--env", PENDULUM, "-params", "callback:stable_baselines3.common.callbacks.CheckpointCallback"],
        "",
        ["`callback` has 'stable_baselines3.common.callbacks.CheckpointCallback': missing a required argument: 'save_freq'"],
    ),
    (
        ["--env", PENDULUM, "-params", "policy:stable_baselines3.sac.policies.SACPolicy"],
        "",
        ["-params: `policy` is ", "subclass"],
    ),
    (
        ["--env", PENDULUM, "-params", "policy_kwargs:dict(n_critics='a')"],
        "",
        ["-params: `n_critics` is 'a'; it must be a whole"],
    ),
    (
        ["--env", PENDULUM, "-params", "policy_kwargs:dict(activation_fn=nn.Softmax)"],
        "",
        ["-params: `activation_fn` in ", "relu"],
    ),
    (
        ["--env", PENDULUM, "-params", "policy_kwargs:dict(use_sde=True)"],
        "",
        ["-params: FlowPolicy of FQL has no `policy_kwargs.use"],
    ),
    (
        ["--env", PENDULUM, "-params", "policy_kwargs:dict(horizon_length=3)"],
        "",
        ["-params: `policy_kwargs.horizon_length` is an argument of FQL: write `horizon_length` without `policy_kwargs`."],
    ),
    (
        ["--env", PENDULUM, "-params", "policy_kwargs:dict(optimizer_kwargs=dict(weight_deca=1e-3))"],
        "",
        ["-params: `optimizer_kwargs`: Adam has no argument `weight_deca`; did you mean `weight_decay`?"],
    ),
    (["--env", PENDULUM, "--env-kwargs", "nothing:1"], "", ["unexpected keyword argument 'nothing'"]),
]


@pytest.mark.parametrize(("arguments", "conf", "messages"), WRONG)
def test_what_is_wrong_is_said(
    arguments: list[str], conf: str, messages: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OGBENCH_DATA_DIR", str(tmp_path))
    options = [] if "--algo" in arguments else ["--algo", "fql"]
    if conf:
        (tmp_path / "conf.yml").write_text(conf, "utf-8")
        options += ["--conf-file", "conf.yml"]
    result = run("train", *options, *arguments, "--device", "cpu", folder=tmp_path)
    assert result.code == 2
    for message in messages:
        assert message in result.err
    assert "Traceback" not in result.err
    assert not list(tmp_path.glob("logs/*/*")), "`enjoy` would take it as the latest run"


def test_options_of_the_command_are_no_arguments(tmp_path: Path) -> None:
    result = run("train", "--algo", "fql", "--env", PENDULUM, "-params", "zzz:1", folder=tmp_path)
    expected = result.err.partition("expected one of: ")[2].rstrip(".\n").split(", ")
    assert "alpha" in expected and not {"env", "seed", "device", "verbose", "tensorboard_log"} & set(expected)


def test_the_folder_of_another_process_remains(workdir: Path) -> None:
    """A command that fails deletes only a folder that it has made."""
    folder = workdir / "logs" / "fql" / f"{MAZE}_78"
    folder.mkdir(parents=True)
    (folder / "notes.txt").touch()
    options = ["--algo", "fql", "--env", MAZE, "--conf-file", "small.yml", "--run-id", 78, "-params", "dataset:absent.npz"]
    assert run("train", *options, folder=workdir).code == 2
    assert (folder / "notes.txt").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["enjoy", "--algo", "fql", "--env", PENDULUM, "-f", "absent"], "absent/fql"),
        (["enjoy", "--algo", "fql", "--env", PENDULUM], "logs/fql"),
        (["optimize", "--algo", "td3_offline", "--env", PENDULUM], "td3_offline has no search space"),
        (["export", "--algo", "fql", "--env", PENDULUM], "logs/fql"),
        (["export", "--algo", "td3_offline", "--env", PENDULUM], "--algo 'td3_offline' cannot be exported; choose one of"),
        (["push-to-hub", "--algo", "fql", "--env", PENDULUM, "-f", "logs"], "-orga"),
        (["push-to-hub", "--algo", "fql", "--env", PENDULUM, "-f", "logs", "-orga", "nobody"], "logs/fql"),
    ],
)
def test_what_is_missing_is_said(arguments: list[str], message: str, tmp_path: Path) -> None:
    result = run(*arguments, folder=tmp_path)
    assert result.code == 2 and message in result.err.replace(os.sep, "/") and "Traceback" not in result.err


@pytest.mark.slow
def test_without_rl_zoo_the_package_is_named(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("""
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "rl_zoo3":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
from sb3_flow.cli import main
sys.exit(main(["train", "--algo", "fql", "--env", "Pendulum-v1"]))
""")
    result = PythonProcess(program).wait()
    assert result.returncode == 2
    assert result.stderr == "sb3-flow: The command line of RL Zoo needs the package `rl_zoo3`: pip install 'sb3_flow[zoo]'\n"


# Arguments that are checked before RL Zoo parses them.


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("dataset:cube-single-play-v0", "cube-single-play-v0"),
        ("dataset:ogbench:cube-single-play-v0", "ogbench:cube-single-play-v0"),
        ("dataset:folder/data.npz", "folder/data.npz"),
        ("dataset:'a b.npz'", "a b.npz"),
        ("learning_rate:lin_1e-3", "lin_1e-3"),
        ("q_agg:min", "min"),
        ("policy:sb3_flow.fql.FQLPolicy", "sb3_flow.fql.FQLPolicy"),
        ("env_wrapper:sb3_flow.envs.pixels.PixelObservation", "sb3_flow.envs.pixels.PixelObservation"),
        ("q_agg:'min'", "min"),
        ("alpha:1e3", 1000.0),
        ("alpha:-1", -1),
        ("batch_size:2**5", 32),
        ("normalize:true", True),
        ("normalize_q_loss:False", False),
        ("offline_steps:none", None),
        ("policy_kwargs:dict(net_arch=[8, 8])", {"net_arch": [8, 8]}),
        ("policy_kwargs:{'net_arch': [8]}", {"net_arch": [8]}),
        ("train_freq:(1, 'episode')", (1, "episode")),
    ],
)
def test_values_reach_rl_zoo_as_they_are_meant(given: str, expected: Any) -> None:
    import argparse

    from rl_zoo3 import utils

    parser = argparse.ArgumentParser()
    parser.add_argument("-params", nargs="+", action=utils.StoreDict)
    parser.add_argument("--env")
    arguments = quote_values(["-params", given, "--env", "a-b:c"])
    with parsed_values():
        parsed = parser.parse_args(arguments)
    assert list(parsed.params.values()) == [expected] and type(parsed.params.popitem()[1]) is type(expected)
    assert parsed.env == "a-b:c"


def test_classes_that_rl_zoo_knows_stay_python() -> None:
    given = ["-params", "policy_kwargs:dict(optimizer_class=th.optim.AdamW)", "activation:nn.ReLU"]
    assert quote_values(given) == given


def test_defaults_are_for_our_algorithms_only() -> None:
    def added(name: str, *arguments: str) -> list[str]:
        return add_defaults(name, list(arguments), ["fql"], ["fql", "td3_offline"])[len(arguments) :]

    assert added("enjoy", "--algo", "fql") == ["--folder", "logs", "--stochastic"]
    assert added("record-video", "--algo=fql", "-f", "there") == ["--stochastic"]
    assert added("enjoy", "--algo", "fql", "--deterministic", "--folder=there") == []
    assert added("enjoy", "--algo", "td3_offline") == ["--folder", "logs"]
    assert added("enjoy", "--algo", "sac") == []
    assert added("train", "--algo", "fql") == []


# The documentation page.


def documented_commands() -> list[list[str]]:
    text = (ROOT / "docs" / "zoo.md").read_text("utf-8")
    blocks = re.findall(r"^```bash\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    found = [line.split("#")[0].split() for line in lines if line.startswith("sb3-flow ")]
    return [words[1:] for words in found]


def test_the_page_shows_every_command() -> None:
    assert set(SCRIPTS) <= {words[0] for words in documented_commands()}


@pytest.mark.parametrize("name", SCRIPTS)
def test_options_of_the_page_exist(name: str) -> None:
    result = run(name, "--help")
    assert result.code == 0
    known = set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", result.out))
    commands = [words for words in documented_commands() if words[0] == name]
    options = {word for words in commands for word in words if re.match(r"--?[a-z]", word)}
    assert options - known == set()


def test_names_of_the_page_exist() -> None:
    for words in documented_commands():
        for option, value in pairwise(words):
            if option == "--algo":
                assert value in ALGORITHMS
            if option == "--conf-file" and "." not in value:
                assert config_path(value).is_file()
