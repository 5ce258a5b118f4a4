"""RL Zoo's experiment manager, as flow policies and offline data need it. Imported only where RL Zoo is."""

import time
import zipfile
from pathlib import Path
from typing import Any

import yaml
from rl_zoo3.utils import ALGOS, get_latest_run_id
from stable_baselines3.common import callbacks
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from sb3_flow.common.checkpoints import TrainingCheckpoint, latest_checkpoint
from sb3_flow.common.offline_algorithm import OfflineAlgorithm
from sb3_flow.zoo.callbacks import EvalCallback, SamplerEvalCallback, TrainingClock
from sb3_flow.zoo.hyperparameters import HyperparameterReader
from sb3_flow.zoo.system import describe_system

#: A way to act that is no sampler of the policy: with noise, where actions are usually deterministic.
SAMPLED = "sampled"


class FlowExperimentManager(HyperparameterReader):
    """
    Reads our configurations, evaluates other samplers, and goes on with runs that were stopped. Other algorithms are left as
    they are.

    :param args: As those of ``HyperparameterReader``, like all arguments but these:
    :param run_id: Number of the run's folder, ``<log folder>/<algorithm>/<environment>_<run_id>``; None: the next free one,
        or, to be resumed, the latest
    :param resume: Whether to go on from the run's last checkpoint, if there is one
    :param checkpoint_freq: Timesteps between two checkpoints to resume from, 0 for none; None: as between evaluations
    :param eval_samplers: Samplers of the policy, beside the default one, that are evaluated too, or ``"sampled"`` for
        sampled actions of one that is usually evaluated without noise. The results go to
        ``<log folder>/<algorithm>-<sampler>/``, as if it were another algorithm.
    """

    def __init__(
        self,
        *args: Any,
        run_id: int | None = None,
        resume: bool = False,
        checkpoint_freq: int | None = None,
        eval_samplers: tuple[str, ...] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.eval_samplers = eval_samplers
        self.resumable = issubclass(ALGOS[self.algo], OfflineAlgorithm) and not self.optimize_hyperparameters
        if checkpoint_freq is None:
            checkpoint_freq = self.eval_freq if self.eval_freq > 0 else 25_000
        self.checkpoint_freq = checkpoint_freq
        if resume and not self.resumable:
            print(f"{self.algo} writes no checkpoints to resume from: a run that has not finished starts anew.")
        if run_id is None and resume:
            run_id = get_latest_run_id(self.log_path, self.env_name) or None
        if run_id is not None:
            self.save_path = str(Path(self.log_path) / f"{self.env_name}_{run_id}")
            self.params_path = f"{self.save_path}/{self.env_name}"
        self.finished = zipfile.is_zipfile(Path(self.save_path, f"{self.env_name}.zip"))  # and not half of one
        self.resuming = resume and self.resumable and latest_checkpoint(self.save_path) is not None
        if run_id is not None and not resume and Path(self.params_path).exists():
            raise ValueError(f"{self.save_path} has a run already: add --resume to go on with it, or take another --run-id.")

    def setup_experiment(self) -> tuple[BaseAlgorithm, dict[str, Any]] | None:
        """As RL Zoo does, but nothing for a run that has finished, and the last checkpoint for one that is resumed."""
        if self.finished:
            print(f"{self.save_path} has finished: nothing to do.")
            return None, {}  # type: ignore[return-value] # RL Zoo trains no model where there is none
        if self.resuming:
            self.continue_training = True
            self.monitor_kwargs = {**self.monitor_kwargs, "override_existing": False}
        return super().setup_experiment()

    def read_hyperparameters(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """As ``HyperparameterReader`` does; a run is resumed with what it was started with."""
        hyperparams, saved = super().read_hyperparameters()
        self._refuse_other_settings(saved)
        return hyperparams, saved

    def _load_pretrained_agent(self, hyperparams: dict[str, Any], env: VecEnv) -> BaseAlgorithm:
        if not self.resuming:
            return super()._load_pretrained_agent(hyperparams, env)
        print(f"Going on from {latest_checkpoint(self.save_path)}")
        algorithm: Any = ALGOS[self.algo]
        model: BaseAlgorithm = algorithm.resume(
            self.save_path, env, device=self.device, verbose=self.verbose, tensorboard_log=self.tensorboard_log
        )
        return model

    def _save_config(self, saved_hyperparams: dict[str, Any]) -> None:
        if not self.resuming:  # The run has its own, with the seed that it began with.
            super()._save_config(saved_hyperparams)

    def _refuse_other_settings(self, saved: dict[str, Any]) -> None:
        """A run is resumed with the settings that it has; other ones would be ignored."""
        config = Path(self.params_path) / "config.yml"
        if not (self.resuming and config.is_file()):
            return
        before = yaml.load(config.read_text("utf-8"), yaml.UnsafeLoader)
        changed = [key for key in {**before, **saved} if before.get(key) != saved.get(key)]
        if changed:
            key = changed[0]
            raise ValueError(
                f"{self.save_path} was started with `{key}: {before.get(key)}`, and would be resumed with `{key}: "
                f"{saved.get(key)}`. Give the same settings, or start another run."
            )

    def learn(self, model: BaseAlgorithm) -> None:
        """As RL Zoo does; what the run was made with, and how long it took, is written to ``system.yml``."""
        start = time.monotonic()
        super().learn(model)
        system = {**describe_system(), "seconds": round(time.monotonic() - start)}
        (Path(self.params_path) / "system.yml").write_text(yaml.safe_dump(system, sort_keys=False), "utf-8")

    def create_callbacks(self) -> None:
        """As RL Zoo does, with one more evaluation for each of ``eval_samplers``, a clock, and checkpoints to resume from."""
        super().create_callbacks()  # type: ignore[no-untyped-call]
        usual = [callback for callback in self.callbacks if isinstance(callback, callbacks.EvalCallback)]
        self.callbacks = [callback for callback in self.callbacks if callback not in usual]
        evaluations = [EvalCallback.like(callback) for callback in usual]
        evaluations += [self._evaluation(sampler) for sampler in self.eval_samplers if usual]
        if evaluations:
            self.callbacks.append(TrainingClock(evaluations))
        if self.resumable and self.checkpoint_freq > 0:
            # The last one, so that a checkpoint has the evaluations of its timestep.
            self.callbacks.append(TrainingCheckpoint(self.save_path, save_freq=max(self.checkpoint_freq // self.n_envs, 1)))

    def _evaluation(self, sampler: str) -> EvalCallback:
        """Of another sampler, or of sampled actions where actions are usually deterministic."""
        if sampler == SAMPLED and not self.deterministic_eval:
            raise ValueError(f"{self.algo} is evaluated by sampled actions anyway; leave `{SAMPLED}` out of --eval-samplers.")
        options = {
            "n_eval_episodes": self.n_eval_episodes,
            "eval_freq": self.eval_freq,
            "log_path": str(Path(self.log_folder) / f"{self.algo}-{sampler}" / Path(self.save_path).name),
            "deterministic": self.deterministic_eval and sampler != SAMPLED,
        }
        env = self.create_envs(self.n_eval_envs, eval_env=True)
        return EvalCallback(env, **options) if sampler == SAMPLED else SamplerEvalCallback(sampler, env, **options)
