"""The Hugging Face hub: uploads with a model card and the exported policy, downloads that run nothing."""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from sb3_flow.common.export import ExportedPolicy, describe
from sb3_flow.common.optional import require
from sb3_flow.zoo.algorithms import ALGORITHMS
from sb3_flow.zoo.card import Package, model_card
from sb3_flow.zoo.runs import load_run
from sb3_flow.zoo.trust import read_yaml, replaced

PURPOSE = "The Hugging Face hub"
#: Tags of a model, beside those of RL Zoo.
TAGS = ["sb3_flow", "flow-matching"]


@contextmanager
def uploading(arguments: list[str], trusted: bool) -> Iterator[None]:
    """
    Context of RL Zoo's ``push-to-hub``. For our algorithms it adds the exported policy, versions, and our model card.

    :param arguments: The command line
    :param trusted: Whether Python objects in files of the run may be created
    """
    pushing: Any = require("huggingface_sb3.push_to_hub", "zoo", PURPOSE)
    with ExitStack() as stack:
        if not hasattr(pushing, "generate_metadata"):  # RL Zoo 2.9 imports it, but now it is private and has another type
            metadata = partial(_metadata, pushing._generate_metadata)
            stack.enter_context(replaced(pushing, "generate_metadata", metadata))
        if _algorithm(arguments) in ALGORITHMS:
            stack.enter_context(Upload(arguments, trusted).extending())
        yield


@contextmanager
def downloading(arguments: list[str], trusted: bool) -> Iterator[None]:
    """
    Context of RL Zoo's ``load-from-hub``. A download runs nothing, and our algorithms load no pickles unless they are trusted;
    for other algorithms huggingface_sb3 asks whether the source is trusted.

    :param arguments: The command line
    :param trusted: Whether the source is trusted
    """
    if trusted or _algorithm(arguments) in ALGORITHMS:
        with replaced(require("huggingface_sb3", "zoo", PURPOSE), "load_from_hub", download):
            yield
    else:
        yield


def _algorithm(arguments: list[str]) -> str | None:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--algo")
    return parser.parse_known_args(arguments)[0].algo  # type: ignore[no-any-return]


def _metadata(generate: Any, *args: Any) -> dict[str, Any]:
    return generate(*args).to_dict()  # type: ignore[no-any-return]


class Upload:
    """
    An upload of a run. RL Zoo's script finds the run, evaluates its model and uploads a folder; each of these steps is
    extended while it runs.

    :param arguments: The command line
    :param trusted: Whether Python objects in files of the run may be created
    """

    def __init__(self, arguments: list[str], trusted: bool) -> None:
        parser = argparse.ArgumentParser(add_help=False)
        parser.add_argument("--algo")
        parser.add_argument("--seed", type=int, default=0)
        self.options, self.trusted = parser.parse_known_args(arguments)[0], trusted
        self.env_name: Any = None
        self.run, self.model = Path(), None
        self.observations: dict[str, Any] | None = None

    @contextmanager
    def extending(self) -> Iterator[None]:
        """Context in which RL Zoo's script is extended."""
        utils, api = require("rl_zoo3.utils", "zoo", PURPOSE), require("huggingface_hub", "zoo", PURPOSE).HfApi
        pushing: Any = require("huggingface_sb3.push_to_hub", "zoo", PURPOSE)
        find, evaluate, upload = utils.get_model_path, pushing._evaluate_agent, api.upload_folder

        def get_model_path(exp_id: int, folder: str, algo: str, env_name: Any, *args: Any) -> Any:
            found = find(exp_id, folder, algo, env_name, *args)
            self.env_name, self.run = env_name, Path(found[2])
            return found

        def evaluate_agent(model: Any, env: VecEnv, n_episodes: int, deterministic: bool, folder: Path) -> Any:
            self.model = model
            self._export(folder)
            return evaluate(model, env, n_episodes, deterministic, folder)

        def upload_folder(api: Any, *, repo_id: str, folder_path: Path, **kwargs: Any) -> Any:
            self._write_card(str(repo_id), folder_path)
            return upload(api, repo_id=repo_id, folder_path=folder_path, **kwargs)

        with ExitStack() as stack:
            stack.enter_context(replaced(utils, "get_model_path", get_model_path))
            stack.enter_context(replaced(pushing, "_evaluate_agent", evaluate_agent))
            stack.enter_context(replaced(api, "upload_folder", upload_folder))
            yield

    def _export(self, folder: Path) -> None:
        if not hasattr(self.model, "export"):
            return
        model: Any = self.model
        try:
            model.export(folder / f"{self.options.algo}-{self.env_name}.onnx")
        except (ImportError, ValueError) as error:
            print(f"The policy is uploaded without an ONNX file: {error}")
            return
        self.observations = describe(ExportedPolicy(model.policy, model.env), "")["observations"]

    def _write_card(self, repo_id: str, folder: Path) -> None:
        repocard: Any = require("huggingface_hub.repocard", "zoo", PURPOSE)
        package = Package(
            model=self.model,
            algorithm=self.options.algo,
            env_id=self.env_name.gym_id,
            env_name=str(self.env_name),
            repo_id=repo_id,
            folder=folder,
            run=self.run,
            seed=self.options.seed,
            observations=self.observations,
            trusted=self.trusted,
        )
        system = self.run / self.env_name / "system.yml"
        if system.is_file():
            shutil.copy(system, folder / "system.yml")
        readme = folder / "README.md"
        metadata = repocard.metadata_load(readme)
        metadata["tags"] += TAGS + (["offline-reinforcement-learning"] if package.model.dataset_name is not None else [])
        readme.write_text(model_card(package), "utf-8")
        repocard.metadata_save(readme, metadata)


def download(repo_id: str, filename: str) -> str:
    """
    In the place of ``huggingface_sb3.load_from_hub``: a download runs nothing, so it asks nothing.

    :param repo_id: ``ORGANIZATION/NAME``
    :param filename: The file
    :return: Its path
    :raises requests.HTTPError: If the repository does not have it, which RL Zoo expects.
    :raises ConnectionError: If the hub cannot be reached, and the file has not been downloaded before.
    """
    hub, errors = (require(name, "zoo", PURPOSE) for name in ("huggingface_hub", "huggingface_hub.errors"))
    try:
        path: str = hub.hf_hub_download(repo_id, filename)
    except errors.LocalEntryNotFoundError as error:  # a subclass of the next error
        reason = str(error.__cause__ or error).splitlines()[0]
        raise ConnectionError(f"{filename} of {repo_id} cannot be downloaded: {reason}") from error
    except errors.EntryNotFoundError as error:
        raise require("requests", "zoo", PURPOSE).HTTPError(f"{repo_id} has no {filename}") from error
    return path


def load_from_hub(repo_id: str, trusted: bool = False) -> tuple[BaseAlgorithm, VecEnv]:
    """
    Download a run that ``sb3-flow push-to-hub`` uploaded, and load it.

    :param repo_id: ``ORGANIZATION/NAME``, such as ``"my-name/fql-Pendulum-v1"``
    :param trusted: Whether code in the files may run, such as pickles
    :return: The model, and the environment with the wrappers and statistics of the run
    :raises ImportError: If RL Zoo is not installed.
    :raises ValueError: If the repository is not one of our algorithms, its environment is not registered, or it needs code
        that is not trusted.
    """
    script: Any = require("rl_zoo3.load_from_hub", "zoo", PURPOSE)
    arguments = read_yaml(Path(download(repo_id, "args.yml")), trusted)
    algorithm, env_id = str(arguments.get("algo")), str(arguments.get("env"))
    if algorithm not in ALGORITHMS:
        raise ValueError(f"{repo_id} has a model of the algorithm {algorithm!r}, which is not one of sb3_flow.")
    organization, _, name = repo_id.partition("/")
    with tempfile.TemporaryDirectory() as folder, replaced(script, "load_from_hub", download):
        script.download_from_hub(algorithm, script.EnvironmentName(env_id), 0, folder, organization, name)
        run = load_run(algorithm, env_id, folder, trusted=trusted)
    return run.model, run.env
