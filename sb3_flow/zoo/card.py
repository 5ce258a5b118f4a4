"""The model card of a run, for the Hugging Face hub."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from pprint import pformat
from typing import Any

import numpy as np

from sb3_flow.common.checkpoints.saving import PICKLE
from sb3_flow.common.files import DAMAGE, read_settings
from sb3_flow.common.optional import require
from sb3_flow.methods import METHODS
from sb3_flow.zoo.trust import read_yaml

#: Number of evaluations in the table.
EVALUATIONS = 10


@dataclass(frozen=True)
class Package:
    """
    What is uploaded, and where it comes from.

    :param model: The model
    :param algorithm: Name of the algorithm for RL Zoo
    :param env_id: Id of the environment
    :param env_name: Name of the environment in names of files
    :param repo_id: ``ORGANIZATION/NAME`` on the hub
    :param folder: The folder that is uploaded, with the files of RL Zoo
    :param run: The folder of the run
    :param seed: Seed of the evaluation before the upload
    :param observations: Shape and type of each input of the exported policy; None: it is not exported
    :param trusted: Whether Python objects in files of the run may be created
    """

    model: Any
    algorithm: str
    env_id: str
    env_name: str
    repo_id: str
    folder: Path
    run: Path
    seed: int
    observations: Mapping[str, Mapping[str, Any]] | None
    trusted: bool

    @property
    def name(self) -> str:
        """Name of the files of the model, without suffix."""
        return f"{self.algorithm}-{self.env_name}"

    @property
    def results(self) -> dict[str, Any]:
        """The evaluation before the upload."""
        return dict(json.loads((self.folder / "results.json").read_text("utf-8")))

    @property
    def needs_trust(self) -> bool:
        """Whether loading the model reads pickles."""
        settings = read_settings(self.folder / f"{self.name}.zip").values()
        pickled = any(isinstance(item, dict) and PICKLE in item for item in settings)
        return pickled or (self.folder / "vec_normalize.pkl").is_file()

    def read(self, name: str) -> dict[str, Any]:
        """A YAML file of the run; empty if there is none."""
        path = self.run / self.env_name / name
        return dict(read_yaml(path, self.trusted)) if path.is_file() else {}


def model_card(package: Package) -> str:
    """
    Write the card.

    :param package: What is uploaded
    :return: Markdown, without metadata
    """
    title = f"# {type(package.model).__name__} on {package.env_id}"
    sections = [title, _summary(package), _usage(package), exported_policy(package), _evaluations(package), _seeds(package)]
    return "\n\n".join(filter(None, [*sections, _settings(package), _versions(package)])) + "\n"


def table(rows: Iterable[Iterable[Any]], header: Iterable[str] = ("", "")) -> str:
    """A table of Markdown."""
    header = list(header)
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def _summary(package: Package) -> str:
    # The script loads the model with the seed of its evaluation, so that of training is in the run's files.
    model, method = package.model, next(each for each in METHODS if each.algorithm is type(package.model))
    paper = f"[{method.title}]({method.paper})" if method.paper else method.title
    data, config = "none, trained online", package.read("config.yml")
    if model.dataset_name is not None:
        data = f"`{config.get('dataset', model.dataset_name)}` (digest `{model.dataset_digest}`)"
    results = package.results
    actions = "deterministic" if results["is_deterministic"] else "sampled"
    rows = [
        ("algorithm", f"`{type(model).__name__}`, {paper}; `--algo {package.algorithm}`"),
        ("environment", f"`{package.env_id}`"),
        ("dataset", data),
        ("training", f"{model.n_offline_updates:,} offline updates, {model.n_env_steps:,} environment steps"),
        ("seed of training", package.read("args.yml").get("seed")),
        (
            "return",
            f"{results['mean_reward']:.2f} ± {results['std_reward']:.2f} ({results['n_eval_episodes']} episodes, {actions} "
            f"actions, seed {package.seed})",
        ),
    ]
    return f"A policy that was trained with sb3_flow, Stable-Baselines3 and RL Zoo.\n\n{table(rows)}"


def _usage(package: Package) -> str:
    organization, _, name = package.repo_id.partition("/")
    trusted, warning, option = "", "", ""
    modules = package.read("args.yml").get("gym_packages") or []
    imports = "".join(f"import {module}  # registers the environment\n" for module in modules)
    packages = f" --gym-packages {' '.join(modules)}" if modules else ""
    if package.needs_trust:
        trusted, option = ", trusted=True", " --trusted"
        warning = (
            "The repository has pickles, which run any code that they contain. Trust them, or use the exported policy.\n\n"
        )
    renamed = "" if name == package.name else f" -name {name}"
    return f"""## Usage

{warning}```bash
pip install "sb3_flow[zoo]"
```

```python
{imports}from stable_baselines3.common.evaluation import evaluate_policy
from sb3_flow.zoo import load_from_hub

model, env = load_from_hub("{package.repo_id}"{trusted})
mean, std = evaluate_policy(model, env, n_eval_episodes=10, deterministic={package.results["is_deterministic"]})
```

From the command line:

```bash
sb3-flow load-from-hub --algo {package.algorithm} --env {package.env_id} -orga {organization}{renamed}{packages} -f logs
sb3-flow enjoy --algo {package.algorithm} --env {package.env_id}{packages} -f logs{option}
```"""


def exported_policy(package: Package) -> str:
    """The section about the exported policy; empty if there is none."""
    if package.observations is None:
        return ""
    zeros = {key: f"np.zeros({tuple(part['shape'])}, {part['dtype']!r})" for key, part in package.observations.items()}
    items = ", ".join(f"{key!r}: {value}" for key, value in zeros.items())
    observation = zeros["observation"] if zeros.keys() == {"observation"} else f"{{{items}}}"
    return f"""### Without PyTorch

`{package.name}.onnx` is the policy with normalization, image layout and scaling of actions. It needs numpy, onnxruntime and
one file of sb3_flow. Pass `state` to the next call.

```python
import numpy as np
from huggingface_hub import hf_hub_download
from sb3_flow.deploy import OnnxPolicy

policy = OnnxPolicy(hf_hub_download("{package.repo_id}", "{package.name}.onnx"))
observation = {observation}  # as the environment returns it
action, state = policy.predict(observation, deterministic={package.results["is_deterministic"]})
```"""


def _evaluations(package: Package) -> str:
    folders = {package.algorithm: package.run}
    for folder in sorted(package.run.parents[1].glob(f"{package.algorithm}-*")):
        folders[folder.name] = folder / package.run.name
    rows: list[tuple[Any, ...]] = []
    for name, folder in folders.items():
        arrays = read_evaluations(folder)
        n = len(arrays["timesteps"]) if arrays else 0
        for i in np.unique(np.linspace(0, n - 1, min(n, EVALUATIONS)).astype(int)):
            rows.append((name, *_scores(arrays, i)))
    if not rows:
        return ""
    return f"## Evaluations during training\n\n{table(rows, ('policy', 'timesteps', 'return', 'success rate'))}"


def _seeds(package: Package) -> str:
    """The last evaluation of each run with the same settings."""
    rows: list[tuple[Any, ...]] = []
    folders = package.run.parent.glob(f"{package.env_name}_*")
    for folder in sorted(folders, key=lambda path: (len(path.name), path.name)):
        arrays, other = read_evaluations(folder), replace(package, run=folder)
        if arrays and _compared(other) == _compared(package):
            notes = {"this one": folder == package.run, "interrupted": "interrupted" in other.read("system.yml")}
            rows.append((other.read("args.yml").get("seed"), *_scores(arrays, -1), ", ".join(filter(notes.get, notes))))
    if not rows:
        return ""
    header = ("seed", "timesteps", "return", "success rate", "")
    return f"## Runs with the same settings\n\nThe last evaluation of each run.\n\n{table(rows, header)}"


def _compared(package: Package) -> dict[str, Any]:
    """All settings but the seed: the configuration, and arguments of the command that RL Zoo does not write to it."""
    config, arguments = package.read("config.yml"), package.read("args.yml")
    given = {name: arguments.get(name) or {} for name in ("env_kwargs", "eval_env_kwargs")}
    if arguments.get("n_timesteps", -1) > 0:
        given["n_timesteps"] = arguments["n_timesteps"]
    return config | given


def read_evaluations(folder: Path) -> dict[str, np.ndarray]:
    """The arrays of ``evaluations.npz`` of a run; empty if there is none, or it is being written."""
    try:
        with np.load(folder / "evaluations.npz") as arrays:
            return {name: arrays[name] for name in arrays.files}
    except DAMAGE:
        return {}


def _scores(arrays: dict[str, np.ndarray], i: int) -> tuple[str, str, str]:
    """Timestep, return and success rate of an evaluation."""
    returns = arrays["results"][i]
    rate = f"{arrays['successes'][i].mean():.2f}" if "successes" in arrays else ""
    return f"{arrays['timesteps'][i]:,}", f"{returns.mean():.2f} ± {returns.std():.2f}", rate


def _settings(package: Package) -> str:
    yaml: Any = require("yaml", "zoo", "A model card")
    settings = _plain(package.read("config.yml"))
    command = f"sb3-flow train --algo {package.algorithm} --env {package.env_id} --conf-file settings.yml"
    arguments = package.read("args.yml")
    if arguments.get("gym_packages"):
        command += f" --gym-packages {' '.join(arguments['gym_packages'])}"
    if "seed" in arguments:
        command += f" --seed {arguments['seed']}"
    try:
        text = f"```yaml\n{yaml.safe_dump({package.env_id: settings}, sort_keys=False)}```"
    except yaml.YAMLError:  # a class or a function
        text = f"```\n{pformat(settings)}\n```"
    further = ""
    if arguments.get("env_kwargs"):
        further = f"\n\nArguments of the environment (`--env-kwargs`): `{arguments['env_kwargs']}`."
    return f"## Settings\n\nAs `settings.yml` for `{command}`:\n\n{text}{further}"


def _plain(value: Any) -> Any:
    """The same with lists and dictionaries only, which YAML has without tags."""
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value


def _versions(package: Package) -> str:
    system = package.read("system.yml")
    return f"## Versions and hardware of training\n\n{table(system.items())}" if system else ""
