"""RL Zoo's scripts read files of runs and text of configurations, and nothing in them is run unless it is trusted."""

import base64
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
import stable_baselines3
import torch as th
from conformance.environments import pendulums
from stable_baselines3 import SAC
from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike
from stable_baselines3.common.torch_layers import NatureCNN
from stable_baselines3.common.vec_env import VecNormalize
from torch import nn

from sb3_flow import FQL
from sb3_flow.cli import main
from sb3_flow.zoo.values import NotAValue, parse_value

#: What a marker adds to.
RUN: list[str] = []
PENDULUM = "Pendulum-v1"
ENJOY = ["enjoy", "--algo", "fql", "--env", PENDULUM, "--exp-id", "1", "-n", "3", "--no-render", "--device", "cpu"]


def run(*_: Any, **__: Any) -> str:
    """Harmless: what the files of these tests would have called."""
    RUN.append("marker")
    return "marker"


class Marker:
    def __reduce__(self) -> tuple[Any, ...]:
        return run, ()


@pytest.fixture(autouse=True)
def nothing_has_run() -> None:
    RUN.clear()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("dict(net_arch=[64, 64], activation_fn=nn.ReLU)", {"net_arch": [64, 64], "activation_fn": nn.ReLU}),
        ("dict(log_std_init=-2, net_arch=dict(pi=[256, 256]))", {"log_std_init": -2, "net_arch": {"pi": [256, 256]}}),
        ("{'norm_obs': True, 'norm_reward': False}", {"norm_obs": True, "norm_reward": False}),
        ("dict(optimizer_class=RMSpropTFLike)", {"optimizer_class": RMSpropTFLike}),
        ("torch.nn.Tanh", nn.Tanh),
        ("th.optim.AdamW", th.optim.AdamW),
        ("th.float32", th.float32),
        ("HerReplayBuffer", stable_baselines3.HerReplayBuffer),
        ("stable_baselines3.common.torch_layers.NatureCNN", NatureCNN),
        (" (1, 'episode') ", (1, "episode")),
        ("[256] * 2", [256, 256]),
        ("2**5", 32),
        ("1e-3 / 2", 5e-4),
        ("-3", -3),
        ("float('inf')", np.inf),
        ("np.inf", np.inf),
        ("{1, 2}", {1, 2}),
        ("not True", False),
    ],
)
def test_values_are_parsed(text: str, value: Any) -> None:
    assert parse_value(text) == value


@pytest.mark.parametrize(
    "text",
    [
        *("run()", "__import__('os').system('true')", "exec('1')", "open('x')", "[x for x in [1]]", "lambda: 1", "f'{run()}'"),
        *("dict(a=run())", "[].append", "nn.ReLU()", "nn.functional.relu", "nn.init", "th.load", "os.system", "().__class__"),
        *("9**9**9", "10**100000", "[1] * 10**9", "'a' * 10**9", "nothing", "dict(**{})", "{**{}}", "1 if 1 else 2", "(", ""),
        *("a[0]", "x := 1", "1 < 2", "-" * 10_000 + "1", "sb3_flow.zoo.trust.os"),
    ],
)
def test_other_text_is_not_a_value(text: str) -> None:
    with pytest.raises(NotAValue, match="is not a value"):
        parse_value(text)
    assert RUN == []


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run as RL Zoo lays it out."""
    pytest.importorskip("rl_zoo3")
    run_folder = tmp_path / "logs" / "fql" / f"{PENDULUM}_1"
    (run_folder / PENDULUM).mkdir(parents=True)
    FQL("FlowPolicy", PENDULUM, policy_kwargs={"net_arch": [8]}, device="cpu").save(run_folder / f"{PENDULUM}.zip")
    write(run_folder, "config.yml", [["policy", "FlowPolicy"]])
    write(run_folder, "args.yml", [["env_kwargs", None]])
    monkeypatch.chdir(tmp_path)
    return run_folder


def write(folder: Path, name: str, pairs: list[list[Any]]) -> None:
    """A file of YAML as RL Zoo writes it."""
    (folder / PENDULUM / name).write_text(f"!!python/object/apply:collections.OrderedDict\n- {json.dumps(pairs)}\n", "utf-8")


def plant(model: Path) -> None:
    with zipfile.ZipFile(model) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    pickled = base64.b64encode(cloudpickle.dumps(Marker())).decode()
    members["data"] = json.dumps({**json.loads(members["data"]), "new": {":serialized:": pickled}}).encode()
    with zipfile.ZipFile(model, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The message of a command that ends with an error, and has run nothing."""
    assert main(list(arguments)) == 2
    assert RUN == []
    error = capsys.readouterr().err
    assert "--trusted" in error and "Traceback" not in error
    return error


def test_a_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its pickles need ``--trusted``, in `enjoy` and where training goes on from it."""
    assert main(ENJOY) == 0 and main([*ENJOY, "--trusted"]) == 0
    plant(folder / f"{PENDULUM}.zip")
    assert "pickled objects (new)" in refused(capsys, *ENJOY)
    assert "pickled objects (new)" in refused(capsys, "export", *ENJOY[1:5], "--exp-id", "1")
    config = {PENDULUM: {"policy": "FlowPolicy", "n_timesteps": 2, "policy_kwargs": {"net_arch": [8]}, "batch_size": 4}}
    Path("conf.yml").write_text(json.dumps(config), "utf-8")
    train = ["train", *ENJOY[1:5], "--conf-file", "conf.yml", "-i", str(folder / f"{PENDULUM}.zip"), "--eval-freq", "-1"]
    assert "pickled objects (new)" in refused(capsys, *train, "--device", "cpu")
    assert main([*ENJOY, "--trusted"]) == 0
    assert RUN == ["marker"]
    assert main([*train, "--device", "cpu", "--trusted"]) == 0
    assert RUN == ["marker"] * 2


def test_a_model_of_stable_baselines3(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It always has pickles; afterwards its class is as it was."""
    folder.parent.rename(folder.parents[1] / "sac")
    folder = folder.parents[1] / "sac" / folder.name
    SAC("MlpPolicy", PENDULUM, policy_kwargs={"net_arch": [8]}, buffer_size=10, device="cpu").save(folder / f"{PENDULUM}.zip")
    enjoy = ["sac" if argument == "fql" else argument for argument in ENJOY] + ["-f", "logs"]
    assert "policy_class" in refused(capsys, *enjoy)
    assert main([*enjoy, "--trusted"]) == 0
    assert type(SAC.load(folder / f"{PENDULUM}.zip")) is SAC


def test_statistics(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """RL Zoo writes those of ``VecNormalize`` as a pickle."""
    write(folder, "config.yml", [["policy", "FlowPolicy"], ["normalize", "dict(norm_obs=True)"]])
    statistics = folder / PENDULUM / "vecnormalize.pkl"
    VecNormalize(pendulums(1)).save(str(statistics))
    assert main([*ENJOY, "--trusted"]) == 0
    statistics.write_bytes(pickle.dumps(Marker()))
    assert "vecnormalize.pkl is a pickle" in refused(capsys, *ENJOY)


@pytest.mark.parametrize("name", ["config.yml", "args.yml"])
def test_yaml_with_python_objects(folder: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / PENDULUM / name).write_text(f"!!python/object/apply:{__name__}.run []\n", "utf-8")
    assert f"{__name__}.run" in refused(capsys, *ENJOY)


def test_text_in_a_configuration(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is parsed, whether the run is trusted or not."""
    write(folder, "config.yml", [["policy", "FlowPolicy"], ["normalize", "__import__('sys').exit(7)"]])
    for trusted in ([], ["--trusted"]):
        assert main([*ENJOY, *trusted]) == 2
        assert "is not a value" in capsys.readouterr().err
    config = {"policy": "FlowPolicy", "n_timesteps": 2, "policy_kwargs": "dict(net_arch=__import__('sys').exit(7))"}
    Path("conf.yml").write_text(json.dumps({PENDULUM: config}), "utf-8")
    assert main(["train", *ENJOY[1:5], "--conf-file", "conf.yml"]) == 2
    assert "is not a value" in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrapper", [f"{__name__}.run", {f"{__name__}.run": {"a": 1}}, [{f"{__name__}.run": {}}], f"{__name__}.Marker", "run"]
)
def test_wrappers(folder: Path, wrapper: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """A name in a file is not called unless it is that of a wrapper."""
    write(folder, "config.yml", [["policy", "FlowPolicy"], ["env_wrapper", wrapper]])
    assert "is not a class of wrappers" in refused(capsys, *ENJOY)


def test_wrappers_of_environments(folder: Path) -> None:
    wrappers = ["sb3_flow.common.environments.report_success", {"gymnasium.wrappers.TimeLimit": {"max_episode_steps": 2}}]
    write(folder, "config.yml", [["policy", "FlowPolicy"], ["env_wrapper", wrappers]])
    assert main(ENJOY) == 0


def test_results_of_plots(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("rl_zoo3")
    (tmp_path / "results.pkl").write_bytes(pickle.dumps(Marker()))
    refused(capsys, "plot-from-file", "-i", str(tmp_path / "results.pkl"))


def test_classes_of_a_run_are_read_without_trust(folder: Path) -> None:
    """RL Zoo writes the activation of ``-params policy_kwargs:dict(activation_fn=nn.ReLU)`` as the name of a class."""
    import yaml

    from sb3_flow.zoo.trust import read_yaml

    path = folder / PENDULUM / "config.yml"
    path.write_text(yaml.dump({"policy_kwargs": {"activation_fn": nn.ReLU}}), "utf-8")
    assert "python/name" in path.read_text("utf-8")
    assert read_yaml(path) == {"policy_kwargs": {"activation_fn": nn.ReLU}}
    path.write_text(yaml.dump({"policy_kwargs": {"activation_fn": run}}), "utf-8")
    with pytest.raises(ValueError, match=r"config\.yml"):
        read_yaml(path)


def test_a_module_in_the_folder_of_a_run_is_not_imported(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (Path.cwd() / "own_module.py").write_text("raise SystemExit('the module was imported')\n", "utf-8")
    monkeypatch.syspath_prepend(str(Path.cwd()))
    write(folder, "config.yml", [["policy", "FlowPolicy"], ["env_wrapper", "own_module.Wrapper"]])
    assert "is not a class of wrappers" in refused(capsys, *ENJOY)


def test_training_does_not_read_statistics_beside_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """RL Zoo reads ``ENV/vecnormalize.pkl`` in the current folder, also of a new run."""
    config = {"policy": "FlowPolicy", "n_timesteps": 2, "normalize": True, "policy_kwargs": {"net_arch": [8]}}
    Path("conf.yml").write_text(json.dumps({PENDULUM: config}), "utf-8")
    Path(PENDULUM).mkdir()
    Path(PENDULUM, "vecnormalize.pkl").write_bytes(pickle.dumps(Marker()))
    assert "vecnormalize.pkl is a pickle" in refused(capsys, "train", *ENJOY[1:5], "--conf-file", "conf.yml")


def test_a_setting_that_contains_itself(folder: Path) -> None:
    from sb3_flow.zoo.trust import read_yaml

    file = folder / PENDULUM / "config.yml"
    file.write_text("policy_kwargs: &own {a: *own}", "utf-8")
    with pytest.raises(ValueError, match=r"config.yml is not a file of a run: line 1: the value contains itself"):
        read_yaml(file)
