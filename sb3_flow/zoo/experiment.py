"""RL Zoo's experiment manager with support for flow policies and offline data. It needs RL Zoo."""

import io
import math
import shutil
import sys
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import Any, TextIO

import yaml
from rl_zoo3.utils import ALGOS, get_latest_run_id
from stable_baselines3.common import callbacks
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from sb3_flow.common.batched_gradients import require_together, train_together
from sb3_flow.common.checkpoints import TrainingCheckpoint, latest_checkpoint
from sb3_flow.common.lock import LOCK, Lock
from sb3_flow.common.offline_algorithm import OfflineAlgorithm
from sb3_flow.common.turns import Ask
from sb3_flow.zoo.callbacks import EvalCallback, SamplerEvalCallback, TrainingClock
from sb3_flow.zoo.compilation import GAIN, would_pay
from sb3_flow.zoo.hyperparameters import HyperparameterReader
from sb3_flow.zoo.seeds import READY, open_log
from sb3_flow.zoo.system import describe_system
from sb3_flow.zoo.trust import read_yaml, reading, replaced

#: Settings of a run, which are written when its model has been made and checked.
CONFIG = "config.yml"
#: Options of RL Zoo's training script at the first start, which RL Zoo writes with ``CONFIG``.
ARGUMENTS = "args.yml"
#: Keys that RL Zoo or Stable-Baselines3 may add to the values of others before ``CONFIG`` is written.
ADDED = {"normalize": "gamma", "policy_kwargs": "use_sde"}
#: Not a sampler of the policy: sampled actions of an algorithm that is usually evaluated by deterministic actions.
SAMPLED = "sampled"


class FlowExperimentManager(HyperparameterReader):
    """
    RL Zoo's experiment manager, which reads our configurations, evaluates further samplers, and resumes runs. It does not
    change RL Zoo's own algorithms.

    :param args: As for ``HyperparameterReader``
    :param run_id: Number of the run's folder, ``<log folder>/<algorithm>/<environment>_<run_id>``; None: the next free one, or
        with ``resume`` the latest one
    :param resume: Whether to resume from the run's last checkpoint, if there is one, with the seed and timesteps of the run
    :param random_seed: Whether the seed was drawn because none was given
    :param checkpoint_freq: Timesteps between checkpoints for ``resume``, 0: no checkpoints; None: those between evaluations
    :param eval_samplers: Further samplers of the policy to evaluate, or ``"sampled"`` for sampled actions of an algorithm that
        is usually evaluated by deterministic actions. Results are written to ``<log folder>/<algorithm>-<sampler>/``.
    :param trusted: Whether code may run that is in files of earlier runs, such as pickles
    :param ask: If the run trains together with others in one process: see ``train_together``. It also takes ``READY``.
    :param output: The output of the command, if that of the run is a log
    :param kwargs: As for ``HyperparameterReader``
    """

    def __init__(
        self,
        *args: Any,
        run_id: int | None = None,
        resume: bool = False,
        random_seed: bool = False,
        checkpoint_freq: int | None = None,
        eval_samplers: tuple[str, ...] = (),
        trusted: bool = False,
        ask: Ask | None = None,
        output: TextIO | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.eval_samplers, self.trusted, self.ask = eval_samplers, trusted, ask
        self.random_seed, self.output = random_seed, output
        if eval_samplers and self.eval_freq <= 0:
            raise ValueError(f"--eval-samplers needs evaluations, but --eval-freq is {self.eval_freq}; it must be above 0.")
        if self.verbose > 0 and not sys.stdout.isatty() and issubclass(ALGOS[self.algo], OfflineAlgorithm):
            self.show_progress = True  # lines of text, which do not disturb a log
        self.resumable = issubclass(ALGOS[self.algo], OfflineAlgorithm) and not self.optimize_hyperparameters
        if checkpoint_freq is None:
            checkpoint_freq = self.eval_freq if self.eval_freq > 0 else 25_000
        self.checkpoint_freq = checkpoint_freq
        if resume and not self.resumable:
            print(f"{self.algo} does not write checkpoints, so it cannot resume: an unfinished run starts again.")
        if run_id is None and resume:
            run_id = get_latest_run_id(self.log_path, self.env_name) or None
        if run_id is not None:
            self.save_path = str(Path(self.log_path) / f"{self.env_name}_{run_id}")
            self.params_path = f"{self.save_path}/{self.env_name}"
        self.interrupted = self.made_folder = False
        self.lock = Lock(Path(self.save_path) / LOCK, self.save_path)
        self.finished = self._has_finished()
        self.resuming = resume and self.resumable and latest_checkpoint(self.save_path) is not None
        if run_id is not None and not resume and Path(self.params_path, CONFIG).exists():
            other = "--run-id" if ask is None else "folder (-f), because the run of a seed has the number seed + 1"
            raise ValueError(f"{self.save_path} already has a run: add --resume to resume it, or use another {other}.")

    def _has_finished(self) -> bool:
        """Whether the run has a complete model, not one that an interrupt saved."""
        system = Path(self.params_path, "system.yml")
        interrupted = system.is_file() and "interrupted" in read_yaml(system)
        return zipfile.is_zipfile(Path(self.save_path, f"{self.env_name}.zip")) and not interrupted

    def setup_experiment(self) -> tuple[BaseAlgorithm, dict[str, Any]] | None:
        """
        As in RL Zoo, but skip a finished run, and load the last checkpoint of a resumed run. If there is an error, the new
        folder of a run is deleted, which would be the latest run; those of several seeds remain, with their logs.
        """
        if self.finished:
            with redirect_stdout(io.StringIO()):
                self._require_same_settings(super().read_hyperparameters()[1])
            if self.ask is not None:
                open_log(self.save_path)
            print(message := f"{self.save_path} has finished: nothing to do.")
            if self.output is not None:
                print(f"Seed {self.seed}: {message}", file=self.output)
            return None, {}  # type: ignore[return-value] # without a model, RL Zoo does not train
        if self.resuming:
            self.continue_training = True
            self.monitor_kwargs = {**self.monitor_kwargs, "override_existing": False}
        try:
            # `train_seeds` has entered it for all seeds, which would not leave it in the opposite order.
            with reading(self.trusted) if self.ask is None else nullcontext():
                made = super().setup_experiment()
                if made is not None:
                    self._check_made(*made)
                return made
        except BaseException:
            self.lock.release()
            if self.made_folder:
                shutil.rmtree(self.save_path, ignore_errors=True)
            raise

    def hyperparameters_optimization(self) -> None:
        """As in RL Zoo, and delete the folder of the run, which has no model, and would be the latest run."""
        try:
            super().hyperparameters_optimization()
        finally:
            if self.made_folder:
                shutil.rmtree(self.save_path, ignore_errors=True)

    def read_hyperparameters(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """As for ``HyperparameterReader``, and check that a resumed run has the same settings."""
        hyperparams, saved = super().read_hyperparameters()
        self._require_same_settings(saved)
        if self.ask is not None:
            require_together(ALGOS[self.algo], saved.get("compile"))
        return hyperparams, saved

    def create_log_folder(self) -> None:
        """As in RL Zoo, and lock the folder. The folders of several seeds are created when all settings were checked."""
        if self.ask is not None:
            self.ask(READY)
            open_log(self.save_path)
        if not self.optimize_hyperparameters:
            self.lock.acquire()  # until training ends
        empty = {path.name for path in Path(self.save_path).glob("*")} <= {LOCK, self.lock.owner.name}
        self.made_folder = empty and self.ask is None
        super().create_log_folder()  # type: ignore[no-untyped-call]

    def _load_pretrained_agent(self, hyperparams: dict[str, Any], env: VecEnv) -> BaseAlgorithm:
        if not self.resuming:
            return super()._load_pretrained_agent(hyperparams, env)
        print(f"Resuming from {latest_checkpoint(self.save_path)}: seed {self.seed}, {self.n_timesteps} timesteps")
        algorithm: Any = ALGOS[self.algo]
        model: BaseAlgorithm = algorithm.resume(
            self.save_path,
            env,
            device=self.device,
            trusted=self.trusted,
            verbose=self.verbose,
            tensorboard_log=self.tensorboard_log,
        )
        return model

    def _save_config(self, saved_hyperparams: dict[str, Any]) -> None:
        """Do nothing: ``setup_experiment`` writes the configuration after the last checks."""

    def _check_made(self, model: BaseAlgorithm, saved: dict[str, Any]) -> None:
        """Make the last checks, wait until the other seeds have passed theirs, and write the configuration."""
        for evaluation in self.clock.evaluations:
            if isinstance(evaluation, SamplerEvalCallback):
                evaluation.check(model)
        if self.ask is not None:
            self.ask(READY)
        if not self.resuming:  # keep the configuration and seed of the first start
            super()._save_config(saved)

    def _require_same_settings(self, saved: Mapping[str, Any]) -> None:
        """Reject other settings for a run that was started before, because they would be ignored."""
        config, arguments = (Path(self.params_path, name) for name in (CONFIG, ARGUMENTS))
        if not (self.resuming or self.finished) or not config.is_file():
            return
        before = dict(read_yaml(config, self.trusted))
        if not before:
            raise ValueError(f"{config} is empty, so that the settings of the run are not known. Start another run.")
        for key, added in ADDED.items():
            if isinstance(value := before.get(key), dict) and added not in (saved.get(key) or {}):
                before[key] = {name: item for name, item in value.items() if name != added}
        changed = [key for key in {**before, **saved} if before.get(key) != saved.get(key)]
        if changed:
            key = changed[0]
            raise self._started_with(f"`{key}` is {saved.get(key)}", before.get(key))
        if arguments.is_file():
            self._require_same_arguments(read_yaml(arguments, self.trusted), int(before.get("n_timesteps", 0)))

    def _require_same_arguments(self, before: Mapping[str, Any], n_timesteps: int) -> None:
        """
        Reject other options for a run that was started before. The seed and the timesteps, if they are not given, become
        those of the run.
        """
        if not self.random_seed and self.seed != before.get("seed", self.seed):
            raise self._started_with(
                f"--seed is {self.seed}", before["seed"], "Leave it out, or name another run by --run-id."
            )
        for key in ("env_kwargs", "eval_env_kwargs"):
            if (getattr(self.args, key) or {}) != (before.get(key) or {}):
                raise self._started_with(f"--{key.replace('_', '-')} is {getattr(self.args, key)}", before.get(key))
        if self.trained_agent and self.trained_agent != before.get("trained_agent"):
            raise self._started_with(f"-i is {self.trained_agent}", before.get("trained_agent") or "none")
        if before.get("n_timesteps", -1) > 0:
            n_timesteps = before["n_timesteps"]
        if self.n_timesteps > 0 and self.n_timesteps != n_timesteps:
            raise self._started_with(
                f"-n is {self.n_timesteps}",
                n_timesteps,
                "Schedules depend on this number, so that it cannot change: leave it out. To train the finished model "
                f"further, start another run: -i {Path(self.save_path, self.env_name)}.zip, without --resume.",
            )
        self.seed, self.n_timesteps = before.get("seed", self.seed), n_timesteps

    def _started_with(
        self, now: str, before: Any, remedy: str = "Pass the same settings, or start another run."
    ) -> ValueError:
        return ValueError(f"{now}, but {self.save_path} was started with {before}. {remedy}")

    def learn(self, model: BaseAlgorithm) -> None:
        """As in RL Zoo, with advice for long runs, and write versions, hardware and training time to ``system.yml``."""
        given = self._hyperparams.get("compile")
        decided = self.resuming or getattr(model, "compile", False)  # in the file of the model, also in that of `-i`
        if self.verbose > 0 and not decided and would_pay(type(model), self.n_timesteps, model.device.type, given):
            print(f"Long run: `-params compile:True` {GAIN}.")
        try:
            if self.ask is not None:
                train_together(model, self.ask)
            with self._record_interrupts(model):
                super().learn(model)
        except BaseException:
            self.lock.release()
            raise
        system: dict[str, Any] = describe_system()
        if math.isfinite(seconds := self.clock.stop()):
            system["seconds"] = round(seconds)
        if self.interrupted:
            system["interrupted"] = True
        (Path(self.params_path) / "system.yml").write_text(yaml.safe_dump(system, sort_keys=False), "utf-8")

    @contextmanager
    def _record_interrupts(self, model: Any) -> Iterator[None]:
        """Record an interrupt of ``model.learn``, which RL Zoo treats as the end of training, and show its progress."""
        cls: Any = type(model)  # attributes of the model would be saved with it
        learn = cls.learn
        with ExitStack() as stack:

            def recording(*args: Any, **kwargs: Any) -> Any:
                stack.close()  # another model of this class may train at the same time
                try:
                    return learn(*args, **kwargs, progress_bar=self.show_progress)
                except KeyboardInterrupt:
                    self.interrupted = True
                    raise

            stack.enter_context(replaced(cls, "learn", recording))
            yield

    def save_trained_model(self, model: BaseAlgorithm) -> None:
        """
        As in RL Zoo.

        :raises KeyboardInterrupt: After saving, if training was interrupted.
        """
        super().save_trained_model(model)
        self.lock.release()
        if self.interrupted:
            print("Interrupted; the model was saved. --run-id and --resume continue from the last checkpoint.")
            raise KeyboardInterrupt

    def create_callbacks(self) -> None:
        """As in RL Zoo, with an evaluation of each of ``eval_samplers``, a clock, and checkpoints."""
        super().create_callbacks()  # type: ignore[no-untyped-call]
        usual = [callback for callback in self.callbacks if isinstance(callback, callbacks.EvalCallback)]
        # `learn` shows the progress: RL Zoo ends a bar of its own also if training did not start, which raises an error.
        bars = [callback for callback in self.callbacks if isinstance(callback, callbacks.ProgressBarCallback)]
        self.callbacks = [callback for callback in self.callbacks if callback not in usual + bars]
        evaluations = [EvalCallback.like(callback) for callback in usual]
        evaluations += [self._evaluation(sampler) for sampler in self.eval_samplers if usual]
        self.clock = TrainingClock(evaluations)
        self.callbacks.append(self.clock)
        if self.resumable and self.checkpoint_freq > 0:
            # Last, so that a checkpoint includes the evaluations of its timestep.
            self.callbacks.append(
                TrainingCheckpoint(self.save_path, save_freq=max(self.checkpoint_freq // self.n_envs, 1), lock=False)
            )

    def _evaluation(self, sampler: str) -> EvalCallback:
        """Evaluation of another sampler, or of sampled actions of an algorithm that is usually deterministic."""
        if sampler == SAMPLED and not self.deterministic_eval:
            raise ValueError(f"{self.algo} is always evaluated by sampled actions; remove `{SAMPLED}` from --eval-samplers.")
        options = {
            "n_eval_episodes": self.n_eval_episodes,
            "eval_freq": self.eval_freq,
            "log_path": str(Path(self.log_folder) / f"{self.algo}-{sampler}" / Path(self.save_path).name),
            "deterministic": self.deterministic_eval and sampler != SAMPLED,
        }
        env = self.create_envs(self.n_eval_envs, eval_env=True)
        return EvalCallback(env, **options) if sampler == SAMPLED else SamplerEvalCallback(sampler, env, **options)
