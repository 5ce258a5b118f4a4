"""One run from dataset to environment, and what callbacks, logs and checkpoints recorded of it."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CheckpointCallback,
    EvalCallback,
    EveryNTimesteps,
    LogEveryNTimesteps,
    ProgressBarCallback,
)
from stable_baselines3.common.logger import configure
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from conformance.callbacks import Recorder
from conformance.case import AlgorithmCase
from conformance.environments import collect, pendulum
from sb3_flow.common.offline_to_online_algorithm import OfflineToOnlineAlgorithm
from sb3_flow.common.schedules import LinearToZero

pytestmark = pytest.mark.algorithms("FQL", "FPMD", "SWFP")

OFFLINE, TOTAL, EPISODE = 20, 40, 10


@dataclass
class Watched:
    """A run of 20 offline updates and 20 steps of one or two environments, with all callbacks at once."""

    case: AlgorithmCase
    model: OfflineToOnlineAlgorithm
    env: DummyVecEnv
    folder: Path
    recorder: Recorder
    every_ten: Recorder
    bar: ProgressBarCallback

    @property
    def n_envs(self) -> int:
        return self.env.num_envs

    @property
    def clock(self) -> list[int]:
        """``num_timesteps`` at each call of a callback."""
        return list(range(self.n_envs, TOTAL + 1, self.n_envs))


def look(callback: BaseCallback) -> tuple[list[bool], list[bool], float]:
    """What a callback finds in its locals, and the learning rate of the last update."""
    dones = [bool(done) for done in callback.locals["dones"]]
    episodes = ["episode" in info for info in callback.locals["infos"]]
    return dones, episodes, callback.model.policy.optimizer.param_groups[0]["lr"]


@pytest.fixture(scope="module", params=[1, 2], ids="{} envs".format)
def run(
    request: pytest.FixtureRequest, two_phase_algorithm: AlgorithmCase, tmp_path_factory: pytest.TempPathFactory
) -> Watched:
    n_envs, folder = request.param, tmp_path_factory.mktemp("run")
    env = DummyVecEnv([lambda: Monitor(pendulum(EPISODE))] * n_envs)
    recorder, every_ten, bar = Recorder(look=look), Recorder(), ProgressBarCallback()
    model = two_phase_algorithm.make(
        env,
        dataset=collect(pendulum),
        offline_steps=OFFLINE,
        learning_starts=0,
        learning_rate=LinearToZero(1e-3),
    )
    model.set_logger(configure(str(folder), ["csv"]))
    evaluation = EvalCallback(
        pendulum(),
        eval_freq=10 // n_envs,
        n_eval_episodes=2,
        log_path=str(folder),
        best_model_save_path=str(folder),
        warn=False,
    )
    checkpoints = CheckpointCallback(10 // n_envs, str(folder), save_replay_buffer=True)
    callbacks = [recorder, EveryNTimesteps(10, every_ten), evaluation, checkpoints, LogEveryNTimesteps(10), bar]
    model.learn(TOTAL, callback=callbacks, log_interval=1_000)
    return Watched(two_phase_algorithm, model, env, folder, recorder, every_ten, bar)


@pytest.mark.slow
def test_the_clock_runs_through_both_phases(run: Watched) -> None:
    """At every step of the clock, whatever the number of environments, updates and environment steps add up to it."""
    assert run.recorder.clock == run.clock
    assert run.recorder.counts == [(min(time, OFFLINE), max(time - OFFLINE, 0)) for time in run.clock]
    assert (run.recorder.starts, run.recorder.ends, run.recorder.total_timesteps) == (1, 1, TOTAL)
    assert sum(run.env.get_attr("n_steps")) == TOTAL - OFFLINE
    assert (run.model.num_timesteps, run.model.n_offline_updates, run.model.n_env_steps) == (40, 20, 20)
    assert run.model._n_updates == OFFLINE + (TOTAL - OFFLINE) // run.n_envs


def test_locals_of_a_step(run: Watched) -> None:
    """``dones`` and ``infos`` are there in both phases, one for each environment; only real episodes end."""
    for time, (dones, episodes, _) in zip(run.clock, run.recorder.seen, strict=True):
        steps = (time - OFFLINE) // run.n_envs
        assert dones == [time > OFFLINE and steps % EPISODE == 0] * run.n_envs, time
        assert episodes == dones, time


def test_the_learning_rate_runs_through_both_phases(run: Watched) -> None:
    """A schedule sees the whole of ``learn`` once: the rate of an update is that of the clock before it."""
    # Offline the callback follows the update; online it comes between the step of the environment and the update.
    before = [time - run.n_envs for time in run.clock]
    before = [OFFLINE - run.n_envs if time == OFFLINE else time for time in before]
    np.testing.assert_allclose([rate for _, _, rate in run.recorder.seen], [1e-3 * (1 - time / TOTAL) for time in before])


def test_every_n_timesteps(run: Watched) -> None:
    """The event comes by the clock in both phases."""
    assert run.every_ten.clock == [10, 20, 30, 40]


def test_evaluations(run: Watched) -> None:
    """Evaluations come at the clock of both phases, and the best model can be loaded."""
    evaluations = np.load(run.folder / "evaluations.npz")
    assert evaluations["timesteps"].tolist() == [10, 20, 30, 40]
    assert evaluations["results"].shape == evaluations["ep_lengths"].shape == (4, 2)
    best = run.case.load(run.folder / "best_model")
    best_time = evaluations["timesteps"][evaluations["results"].mean(axis=1).argmax()]
    assert best.num_timesteps == best.n_offline_updates + best.n_env_steps == best_time


def test_checkpoints(run: Watched) -> None:
    """The clock in the names advances, and what a checkpoint has counted adds up to it."""
    assert {path.name for path in run.folder.glob("rl_model_*.zip")} == {f"rl_model_{t}_steps.zip" for t in (10, 20, 30, 40)}
    for time in (10, 30):
        checkpoint = run.case.load(run.folder / f"rl_model_{time}_steps")
        counts = checkpoint.num_timesteps, checkpoint.n_offline_updates, checkpoint.n_env_steps
        assert counts == (time, min(time, OFFLINE), max(time - OFFLINE, 0))


def test_log_every_n_timesteps(run: Watched) -> None:
    """The callback writes at the clock of both phases, and what was done adds up to it."""
    with (run.folder / "progress.csv").open() as file:
        lines = [{key: float(value) for key, value in row.items() if value != ""} for row in csv.DictReader(file)]
    rows = [line for line in lines if "time/env_steps" in line]  # the others are those of the evaluations
    assert [row["time/total_timesteps"] for row in rows] == [10, 20, 30, 40]
    assert [row["time/offline_updates"] for row in rows] == [10, 20, 20, 20]
    assert [row["time/env_steps"] for row in rows] == [0, 0, 10, 20]


def test_the_progress_bar_ends_at_its_total_and_is_closed(run: Watched) -> None:
    assert (run.bar.pbar.total, run.bar.pbar.n) == (TOTAL, TOTAL)
    assert run.bar.pbar.disable, "closed"
    run.model.learn(2, progress_bar=True, reset_num_timesteps=False)
