"""Uploads to the Hugging Face hub have a model card whose code runs, and downloads run nothing that is not trusted."""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import python_process
import yaml
from conformance.environments import AnySpaces, transitions
from gymnasium import spaces
from hub_server import Hub
from stable_baselines3 import SAC
from test_trust import RUN, plant

from sb3_flow import FQL
from sb3_flow.cli import main
from sb3_flow.common.export import ExportedPolicy, describe
from sb3_flow.zoo import load_from_hub
from sb3_flow.zoo.card import Package, exported_policy

pytest.importorskip("rl_zoo3")
pytest.importorskip("huggingface_sb3")
huggingface_hub: Any = pytest.importorskip("huggingface_hub")
constants: Any = pytest.importorskip("huggingface_hub.constants")

PENDULUM = "Pendulum-v1"
ENV = ["--algo", "fql", "--env", PENDULUM]
SMALL = {"policy": "FlowPolicy", "batch_size": 16, "flow_steps": 2, "policy_kwargs": {"net_arch": [16]}}


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs: two seeds on data, one online with normalized observations in another folder."""
    folder = tmp_path_factory.mktemp("hub")
    np.savez(folder / "data.npz", **transitions())
    data = {**SMALL, "n_timesteps": 8, "dataset": str(folder / "data.npz")}
    online = {**SMALL, "n_timesteps": 30, "learning_starts": 20, "normalize": "{'norm_obs': True, 'norm_reward': False}"}
    for name, settings in (("data", data), ("online", online)):
        (folder / f"{name}.yml").write_text(yaml.safe_dump({PENDULUM: settings}), "utf-8")
    before = Path.cwd()
    os.chdir(folder)
    try:
        for name, seed in (("data", 1), ("data", 2), ("online", 3)):
            options = ["--conf-file", f"{name}.yml", "--seed", str(seed), "-f", name, "--device", "cpu", "--verbose", "0"]
            options += ["--env-kwargs", "max_episode_steps:20", "--num-threads", "1"]
            if name == "data":
                options += ["--eval-freq", "4", "--eval-episodes", "2", "--eval-samplers", "bc_flow"]
            assert main(["train", *ENV, *options]) == 0
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def hub(logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """An empty hub, and a folder of its own with the runs."""
    for name in ("data", "online"):
        shutil.copytree(logs / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HF_TOKEN", "hf_nothing")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    RUN.clear()
    with Hub() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
        yield hub


@pytest.fixture
def without_export(monkeypatch: pytest.MonkeyPatch) -> None:
    """Uploads have another ONNX file, which takes no seconds."""
    monkeypatch.setattr(FQL, "export", lambda _, path: Path(path).write_bytes(b"onnx"))


def push(*arguments: str) -> None:
    options = ["--no-render", "--env-kwargs", "max_episode_steps:20", "--device", "cpu", "-orga", "me", "--seed", "5"]
    assert main(["push-to-hub", *ENV, *options, *arguments]) == 0


def blocks(card: str, language: str = "python") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", card, re.DOTALL | re.MULTILINE)


def run_block(code: str, hub: Hub, folder: Path, *, trusted: bool = False) -> str:
    """Run code of a card in another process, which knows the hub by the environment variable."""
    folder.mkdir(exist_ok=True)
    (folder / "snippet.py").write_text(code, "utf-8")
    variables = {"HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "home")}
    ended = python_process.run(folder / "snippet.py", cwd=folder, env=variables)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.slow
def test_a_card_is_made_from_the_run(hub: Hub, tmp_path: Path) -> None:
    """Its tables have what the files of the run have, and its code runs; so does that of docs/zoo.md."""
    pytest.importorskip("onnxruntime")
    others = {
        3: ("args.yml", {"env_kwargs": {"g": 5.0}}),
        4: ("args.yml", {"n_timesteps": 6}),
        5: ("system.yml", {"interrupted": True}),
    }
    for number, (name, changed) in others.items():
        folder = Path(shutil.copytree(f"data/fql/{PENDULUM}_2", f"data/fql/{PENDULUM}_{number}"))
        file = folder / PENDULUM / name
        file.write_text(yaml.dump({**dict(yaml.unsafe_load(file.read_text("utf-8"))), **changed}), "utf-8")
    push("-f", "data", "--exp-id", "1", "-m", "Two words")
    assert hub.messages == ["Two words"]
    files = hub.repositories["me/fql-Pendulum-v1"]
    assert {"fql-Pendulum-v1.zip", "fql-Pendulum-v1.onnx", "README.md", "config.yml", "system.yml"} <= files.keys()
    card = files["README.md"].decode()
    run = tmp_path / "data" / "fql" / f"{PENDULUM}_1"
    model = FQL.load(run / PENDULUM, device="cpu")

    _, front, text = card.split("---\n", 2)
    metadata = yaml.safe_load(front)
    assert {"sb3_flow", "offline-reinforcement-learning", PENDULUM} <= set(metadata["tags"])
    results = yaml.safe_load(files["results.json"])
    assert metadata["model-index"][0]["results"][0]["metrics"][0]["value"] == (
        f"{results['mean_reward']:.2f} +/- {results['std_reward']:.2f}"
    )
    assert (
        f"| return | {results['mean_reward']:.2f} ± {results['std_reward']:.2f} (10 episodes, sampled actions, seed 5) |"
        in text
    )
    assert f"(digest `{model.dataset_digest}`)" in text and "| seed of training | 1 |" in text
    assert "| training | 8 offline updates, 0 environment steps |" in text
    for name in ("fql", "fql-bc_flow"):
        arrays = np.load(tmp_path / "data" / name / run.name / "evaluations.npz")
        for timestep, returns in zip(arrays["timesteps"], arrays["results"], strict=True):
            assert f"| {name} | {timestep} | {returns.mean():.2f} ± {returns.std():.2f} |" in text
    for seed in (1, 2):
        last = np.load(run.with_name(f"{PENDULUM}_{seed}") / "evaluations.npz")["results"][-1]
        assert f"| {seed} | 8 | {last.mean():.2f} ± {last.std():.2f} |" in text
    listed = text.split("## Runs with the same settings")[1].split("##")[0]
    assert re.findall(r"^\| (\d) \|.*\| (.*) \|$", listed, re.M) == [("1", "this one"), ("2", ""), ("2", "interrupted")]
    versions = yaml.safe_load(files["system.yml"])
    assert all(f"| {name} | {version} |" in text for name, version in versions.items())

    observation = "np.array([0.6, 0.8, -1.0], np.float32)"
    expected = model.predict(np.array([0.6, 0.8, -1.0], np.float32), deterministic=True)[0]
    loading, exported = blocks(text)
    ask = f"\nimport numpy as np\nprint('action', model.predict({observation}, deterministic=True)[0][0])\nprint(mean, std)"
    printed = run_block(loading + ask, hub, tmp_path / "loading")
    assert float(re.search(r"action (\S+)", printed)[1]) == pytest.approx(expected[0], abs=1e-6)  # type: ignore[index]
    ask = f"\nassert action.shape == (1,)\nprint(policy.predict({observation}, deterministic=True)[0][0])"
    assert float(run_block(exported + ask, hub, tmp_path / "exported")) == pytest.approx(expected[0], abs=1e-5)

    hub.repositories["my-name/fql-Pendulum-v1"] = files
    page = (Path(__file__).parents[2] / "docs" / "zoo.md").read_text("utf-8")
    names: dict[str, Any] = {}
    exec(next(block for block in blocks(page) if "load_from_hub" in block), names)
    np.testing.assert_array_equal(
        names["model"].predict(np.array([0.6, 0.8, -1.0], np.float32), deterministic=True)[0], expected
    )

    (settings,) = blocks(text, "yaml")
    (tmp_path / "settings.yml").write_text(settings, "utf-8")
    (command,) = re.findall(r"As `settings.yml` for `sb3-flow (.*)`", text)
    options = ["-f", "again", "--device", "cpu", "--eval-freq", "-1", "--env-kwargs", "max_episode_steps:20"]
    assert main([*command.split(), *options]) == 0
    again = FQL.load(tmp_path / "again" / "fql" / f"{PENDULUM}_1" / PENDULUM, device="cpu")
    np.testing.assert_array_equal(
        again.predict(np.ones(3, np.float32), deterministic=True)[0],
        model.predict(np.ones(3, np.float32), deterministic=True)[0],
    )


@pytest.mark.slow
def test_the_code_for_an_exported_policy_of_dictionaries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    space = spaces.Dict(camera=spaces.Box(0, 255, (8, 8, 3), np.uint8), mode=spaces.Discrete(3))
    env = AnySpaces(space, spaces.Box(-1, 1, (2,)))
    model = FQL("FlowPolicy", env, horizon_length=2, policy_kwargs={"net_arch": [8]}, device="cpu")
    model.export(tmp_path / "fql-Robot-v0.onnx")
    (tmp_path / "results.json").write_text('{"is_deterministic": true}', "utf-8")
    observations = describe(ExportedPolicy(model.policy, model.env), "FQL")["observations"]
    package = Package(model, "fql", "Robot-v0", "Robot-v0", "me/robot", tmp_path, tmp_path, 0, observations, False)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda _, name: tmp_path / name)
    names: dict[str, Any] = {}
    exec(blocks(exported_policy(package))[0], names)
    zeros = {"camera": np.zeros((8, 8, 3), np.uint8), "mode": 0}
    np.testing.assert_allclose(names["action"], model.predict(zeros, deterministic=True)[0], atol=1e-5)


@pytest.mark.slow
def test_the_commands_of_the_card(hub: Hub, without_export: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Downloads need no trust, and what is downloaded is loaded without pickles."""
    push("-f", "data", "-name", "other")
    card = hub.repositories["me/other"]["README.md"].decode()
    commands = [
        line.split()[1:] for block in blocks(card, "bash") for line in block.splitlines() if line.startswith("sb3-flow")
    ]
    assert [command[0] for command in commands] == ["load-from-hub", "enjoy"]
    assert main(commands[0]) == 0
    assert main([*commands[1], "--no-render", "-n", "3", "--device", "cpu"]) == 0
    plant(tmp_path / "logs" / "fql" / f"{PENDULUM}_1" / f"{PENDULUM}.zip")
    capsys.readouterr()
    assert main([*commands[1], "--no-render", "-n", "3", "--device", "cpu"]) == 2
    assert "pickled objects (new)" in capsys.readouterr().err and RUN == []


@pytest.mark.slow
def test_pickles_of_a_repository_need_trust(hub: Hub, tmp_path: Path) -> None:
    """RL Zoo's statistics of ``VecNormalize`` are a pickle; the exported policy has them, too."""
    push("-f", "online", "--trusted")
    files = hub.repositories["me/fql-Pendulum-v1"]
    card = files["README.md"].decode()
    assert 'load_from_hub("me/fql-Pendulum-v1", trusted=True)' in card and "-f logs --trusted" in card
    assert "| dataset | none, trained online |" in card and "0 offline updates, 30 environment steps" in card
    assert "## Evaluations" not in card and "offline-reinforcement-learning" not in card
    with pytest.raises(ValueError, match=r"is a pickle.*--trusted"):
        load_from_hub("me/fql-Pendulum-v1")
    model, env = load_from_hub("me/fql-Pendulum-v1", trusted=True)
    observation = np.array([[0.6, 0.8, -1.0]], np.float32)
    expected = model.predict(env.normalize_obs(observation), deterministic=True)[0]  # type: ignore[attr-defined]
    run = tmp_path / "online" / "fql" / f"{PENDULUM}_1"
    np.testing.assert_array_equal(
        FQL.load(run / PENDULUM, device="cpu").predict(env.normalize_obs(observation), deterministic=True)[0],  # type: ignore
        expected,
    )
    (tmp_path / "policy.onnx").write_bytes(files["fql-Pendulum-v1.onnx"])
    exported = pytest.importorskip("sb3_flow.deploy").OnnxPolicy(tmp_path / "policy.onnx")
    np.testing.assert_allclose(exported.predict(observation, deterministic=True)[0], expected, atol=1e-5)


@pytest.mark.slow
def test_without_the_extra_for_export(hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def export(*_: Any) -> None:
        raise ImportError("Exporting a policy needs the package `onnxscript`: pip install 'sb3_flow[export]'")

    monkeypatch.setattr(FQL, "export", export)
    push("-f", "data")
    assert "without an ONNX file: Exporting a policy needs" in capsys.readouterr().out
    files = hub.repositories["me/fql-Pendulum-v1"]
    assert not [name for name in files if name.endswith(".onnx")]
    assert len(blocks(files["README.md"].decode())) == 1


@pytest.mark.slow
def test_other_algorithms_are_as_in_rl_zoo(hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "logs" / "sac" / f"{PENDULUM}_1"
    (folder / PENDULUM).mkdir(parents=True)
    SAC("MlpPolicy", PENDULUM, policy_kwargs={"net_arch": [4]}, buffer_size=9, device="cpu").save(folder / f"{PENDULUM}.zip")
    for name, content in (("config.yml", {"policy": "MlpPolicy"}), ("args.yml", {"env_kwargs": None, "algo": "sac"})):
        (folder / PENDULUM / name).write_text(yaml.safe_dump(content), "utf-8")
    options = ["--algo", "sac", "--env", PENDULUM, "-orga", "me"]
    push_options = ["--no-render", "--env-kwargs", "max_episode_steps:5", "-f", "logs", "--device", "cpu", "--trusted"]
    assert main(["push-to-hub", *options, *push_options]) == 0
    assert "**SAC** Agent playing **Pendulum-v1**" in hub.repositories["me/sac-Pendulum-v1"]["README.md"].decode()
    with pytest.raises(ValueError, match="the algorithm 'sac', which is not one of sb3_flow"):
        load_from_hub("me/sac-Pendulum-v1")
    assert main(["load-from-hub", *options, "-f", "downloaded"]) == 2
    assert "untrusted source" in capsys.readouterr().err
    assert main(["load-from-hub", *options, "-f", "downloaded", "--trusted"]) == 0
    assert (tmp_path / "downloaded" / "sac" / f"{PENDULUM}_1" / f"{PENDULUM}.zip").is_file()


def test_a_repository_that_does_not_exist(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["load-from-hub", *ENV, "-orga", "me", "-f", "logs"]) == 2
    assert "me/fql-Pendulum-v1" in capsys.readouterr().err


def test_a_hub_that_cannot_be_reached(hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert main(["load-from-hub", *ENV, "-orga", "me", "-f", "logs"]) == 2
    assert "fql-Pendulum-v1.zip of me/fql-Pendulum-v1 cannot be downloaded" in capsys.readouterr().err


@pytest.mark.slow
def test_a_connection_that_is_lost(
    hub: Hub, without_export: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Statistics that cannot be downloaded do not count as missing: the policy would act without them."""
    push("-f", "data")

    def download(repo_id: str, filename: str) -> str:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", filename.startswith("vec_normalize"))
        return complete(repo_id, filename)

    complete = huggingface_hub.hf_hub_download
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert main(["load-from-hub", *ENV, "-orga", "me", "-f", "logs"]) == 2
    assert "vec_normalize.pkl of me/fql-Pendulum-v1 cannot be downloaded" in capsys.readouterr().err
    assert not (tmp_path / "logs").exists()


@pytest.mark.slow
def test_nothing_in_a_repository_is_run(
    hub: Hub, without_export: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a pickle in the model, nor an object in a YAML file, nor a module in the id of the environment."""
    push("-f", "data")
    files = hub.repositories["me/fql-Pendulum-v1"]
    (tmp_path / "own_module.py").write_text("raise SystemExit('the module was imported')\n", "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "model.zip").write_bytes(files["fql-Pendulum-v1.zip"])
    plant(tmp_path / "model.zip")
    hostile = {
        "pickled objects": {"fql-Pendulum-v1.zip": (tmp_path / "model.zip").read_bytes()},
        "Python object": {"args.yml": b"!!python/object/apply:test_trust.run []\n"},
        "There is no environment 'own_module:Pendulum-v1'": {
            "args.yml": b"{algo: fql, env: 'own_module:Pendulum-v1'}",
            "fql-own_module-Pendulum-v1.zip": files["fql-Pendulum-v1.zip"],
        },
    }
    for message, replaced in hostile.items():
        hub.repositories["me/fql-Pendulum-v1"] = {**files, **replaced}
        shutil.rmtree(tmp_path / "cache")
        with pytest.raises(ValueError, match=message):
            load_from_hub("me/fql-Pendulum-v1")
    assert RUN == []
