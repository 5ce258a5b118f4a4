"""A real sweep: single runs and the whole sweep are killed, resumed and completed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sb3_flow.cli import main
from sb3_flow.common.checkpoints import latest_checkpoint
from sb3_flow.common.progress import duration
from sb3_flow.tables import supervisor
from sb3_flow.tables.display import Display, State, last_lines, progress_of
from sb3_flow.tables.grid import Run
from sb3_flow.tables.sweep import Sweep, check_folders, check_resources, start_ray

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals and locks")

TABLE = """
output: results
seeds: [4]
policy: FlowPolicy
batch_size: 32
policy_kwargs: {net_arch: [32]}
eval_freq: 250
eval_episodes: 1
tasks: {Pendulum-v1: {dataset: data.npz}}
algorithms:
  td3_offline: {n_timesteps: 100, eval_freq: 50, policy: MlpPolicy}
  sac_offline: {n_timesteps: 100, dataset: missing.npz, policy: MlpPolicy}
  fql: {n_timesteps: 3000}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a table and its data."""
    rng = np.random.default_rng(0)
    (tmp_path / "table.yml").write_text(TABLE, "utf-8")
    np.savez(
        tmp_path / "data.npz",
        observations=rng.normal(size=(400, 3)).astype(np.float32),
        actions=rng.uniform(-2, 2, size=(400, 1)).astype(np.float32),
        rewards=rng.normal(size=400),
        terminations=np.zeros(400),
        truncations=np.arange(400) % 100 == 99,
    )
    return tmp_path


def hear_interrupts() -> None:
    """A process that a script starts in the background ignores Ctrl-C, and so would those that it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def sweeping(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """The command, running; it does not outlive the test."""
    with (folder / "output.txt").open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "sb3_flow.cli", "sweep", "table.yml", "--cpus-per-run", "0.3"],
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=hear_interrupts,
            text=True,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def until(condition: Callable[[], object], folder: Path, seconds: float = 240) -> None:
    """Wait for a condition."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, (folder / "output.txt").read_text()
        time.sleep(0.05)


def is_training(run: Path) -> bool:
    """Whether a process trains in the folder of a run: it, or what it has started, holds the lock."""
    import fcntl

    with (run / supervisor.LOCK).open("r+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def pid_of(run: Path) -> int:
    """Process of the latest training of a run."""
    return int((supervisor.read_record(run) or {}).get("pid", 0))


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_one_run_per_usable_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a job of a cluster, or under ``taskset``, a process may use some of the cores of its machine."""
    ray = pytest.importorskip("ray")
    given: dict[str, Any] = {}
    monkeypatch.setattr(ray, "init", lambda **arguments: given.update(arguments))
    usable = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(usable)})
        start_ray(None)
    finally:
        os.sched_setaffinity(0, usable)
    assert given["num_cpus"] == 1


@posix_only
@pytest.mark.nightly
def test_a_sweep_survives_everything(folder: Path) -> None:
    pytest.importorskip("ray")
    fql, td3 = (folder / "results" / algo / "Pendulum-v1_5" for algo in ("fql", "td3_offline"))
    log, output = fql / supervisor.LOG, folder / "output.txt"

    def resumes(times: int) -> bool:
        return log.read_text("utf-8").count("Resuming from") == times

    with sweeping(folder) as process:
        until(lambda: latest_checkpoint(fql), folder)
        killed = pid_of(fql)
        os.kill(killed, signal.SIGKILL)  # one training
        until(lambda: resumes(1), folder)
        until(lambda: supervisor.is_finished(td3), folder)
        until(lambda: "failed: sac_offline" in output.read_text(), folder)
        assert process.poll() is None and is_training(fql) and pid_of(fql) != killed
        process.kill()  # the whole sweep
        until(lambda: not is_training(fql), folder, 30)
    finished_log = (td3 / supervisor.LOG).read_bytes()

    with sweeping(folder) as process:
        until(lambda: resumes(2), folder)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert not is_training(fql)
    assert not supervisor.is_finished(fql) and not (fql / "Pendulum-v1.zip").exists()

    with sweeping(folder) as process:
        until(lambda: process.poll() is not None, folder)
    assert process.returncode == 1
    assert "2 of 3 runs done, 0 running, 1 failed" in output.read_text()
    assert "Failed: sac_offline Pendulum-v1 seed 4: the training ended with exit code 2" in output.read_text()
    assert "missing.npz" in output.read_text()  # the end of its log
    assert "td3_offline" not in output.read_text() and (td3 / supervisor.LOG).read_bytes() == finished_log
    assert resumes(3)
    for run, timesteps in ((fql, [*range(250, 3001, 250)]), (td3, [50, 100])):
        assert (run / "Pendulum-v1.zip").is_file() and supervisor.is_finished(run)
        assert np.load(run / "evaluations.npz")["timesteps"].tolist() == timesteps


@posix_only
@pytest.mark.nightly
def test_a_sweep_with_several_seeds_in_a_process(folder: Path) -> None:
    """Three seeds in processes of two; what cannot train so does in processes of its own, and all finish."""
    pytest.importorskip("ray")
    content = (folder / "table.yml").read_text("utf-8").replace("seeds: [4]", "seeds: 3\nseeds_per_process: 2")
    content = "\n".join(line for line in content.splitlines() if "sac_offline" not in line).replace("3000", "500")
    (folder / "table.yml").write_text(content, "utf-8")
    with sweeping(folder) as process:
        until(lambda: process.poll() is not None, folder)
    output = (folder / "output.txt").read_text()
    assert process.returncode == 0 and "6 of 6 runs done" in output
    assert "in a process of its own: sb3-flow: 2 of 2 seeds failed. Seeds 0, 1: Seeds of OfflineTD3" in output
    for run_id in (1, 2, 3):
        for algo, timesteps in (("fql", [250, 500]), ("td3_offline", [50, 100])):
            run = folder / "results" / algo / f"Pendulum-v1_{run_id}"
            assert supervisor.is_finished(run) and f"--seed={run_id - 1}" in (supervisor.read_record(run) or {})["command"]
            assert np.load(run / "evaluations.npz")["timesteps"].tolist() == timesteps
    assert main(["report", str(folder / "results")]) == 0


RUN = Run("fql", "Pendulum-v1", 0, None, Path(), ("train", "--algo=fql", "--num-threads=1", "-params", "alpha:1"), 100, 1, 0)


def record(folder: Path, *command: str, finished: bool = False) -> Run:
    """A run whose folder says that it was started with a command."""
    folder.mkdir(exist_ok=True)
    supervisor.write_record(folder, {"command": command, "finished": finished})
    return replace(RUN, folder=folder)


def test_finished_runs_are_known(tmp_path: Path) -> None:
    done = record(tmp_path / "done", *RUN.command, finished=True)
    begun = record(tmp_path / "begun", *RUN.command)
    new = replace(RUN, folder=tmp_path / "new")
    assert check_folders([done, begun, new]) == {done}


def test_a_finished_sweep_starts_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = record(tmp_path / "done", *RUN.command, finished=True)
    assert Sweep([done], {done}).run(address="nowhere") == []
    assert capsys.readouterr().out.startswith("1 of 1 runs done, 0 running, 0 failed")


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ("absent/data.npz", "absent/data.npz"),
        ("{source: absent.hdf5, rewards: {shift: -1}}", "absent.hdf5"),
        ("two-routes", "`sb3-flow datasets collect two-routes`"),
    ],
)
def test_absent_data_of_a_later_run_is_known_at_the_start(
    dataset: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Once, with the first run that needs it. Other runs can be trained meanwhile, so that it is no error."""
    monkeypatch.setenv("SB3_FLOW_DATA_DIR", str(tmp_path))
    settings = f"settings: {{first: {{seeds: [0]}}, later: {{seeds: [1, 2], dataset: {dataset}}}}}"
    file = tmp_path / "sweep.yml"
    file.write_text(f"output: {tmp_path}/runs\nn_timesteps: 10\ntasks: [Pendulum-v1]\nalgorithms: [fql]\n{settings}\n")
    assert main(["sweep", str(file), "--dry-run"]) == 0
    shown = capsys.readouterr().err
    assert shown.count("Will fail: later fql Pendulum-v1 seed 1: ") == 1 and message in shown and "seed 2" not in shown


def test_threads_and_place_may_change(tmp_path: Path) -> None:
    command = [argument.replace("threads=1", "threads=8") for argument in RUN.command]
    done = record(tmp_path / "done", "--device=cuda", "--log-folder=elsewhere", *command, finished=True)
    assert check_folders([done]) == {done}


@pytest.mark.parametrize("result", ["finished", "evaluations.npz", "checkpoint_100"])
def test_results_of_other_settings_are_refused(tmp_path: Path, result: str) -> None:
    run = record(tmp_path / "run", "train", "--algo=fql", "-params", "alpha:2", finished=result == "finished")
    if result.startswith("checkpoint"):
        (run.folder / result).mkdir()
    elif result != "finished":
        (run.folder / result).touch()
    with pytest.raises(ValueError, match=r"run has results with other settings: alpha:2; now: alpha:1\."):
        check_folders([run])


def test_what_failed_at_once_may_be_corrected(tmp_path: Path) -> None:
    run = record(tmp_path / "run", "train", "--algo=fql", "-params", "alpha:2")
    (run.folder / "Pendulum-v1").mkdir()
    assert check_folders([run]) == set()


def test_foreign_results_are_refused(tmp_path: Path) -> None:
    run = replace(RUN, folder=tmp_path)
    (tmp_path / supervisor.LOG).touch()
    (tmp_path / supervisor.LOCK).touch()
    assert check_folders([run]) == set()  # killed before it had a record
    (tmp_path / "evaluations.npz").touch()
    with pytest.raises(ValueError, match="contains results that are not from a sweep"):
        check_folders([run])


@pytest.mark.parametrize(("text", "message"), [("{", "is damaged"), ("[]", "was not written by a sweep")])
def test_a_damaged_record_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / supervisor.RECORD).write_text(text)
    with pytest.raises(ValueError, match=rf"sweep\.json.* {message}"):
        check_folders([replace(RUN, folder=tmp_path)])


@posix_only
def test_two_sweeps_never_train_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "PATIENCE", 0.3)
    with supervisor.locked(tmp_path / supervisor.LOCK):
        with pytest.raises(supervisor.BusyError, match="Another process trains in"):
            supervisor.supervise({str(tmp_path): RUN.command}, RUN.command, str(tmp_path), 1, "other")
    assert not (tmp_path / supervisor.RECORD).exists()


@pytest.mark.skipif(sys.platform != "linux", reason="Linux ends a process with its parent")
@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
def test_a_training_ends_with_its_task(tmp_path: Path, ending: signal.Signals) -> None:
    program = (
        "import runpy, sys\n"
        "supervise = runpy.run_path(sys.argv[1])['supervise']\n"
        "assert 'torch' not in sys.modules\n"  # a worker is light
        "try:\n"
        "    command = ['train', '--algo=sac', '--env=Pendulum-v1', '--device=cpu']\n"
        "    supervise({'run': command}, command, '.', 1, '')\n"
        "except KeyboardInterrupt:\n"
        "    sys.stdin.read()"  # a worker lives longer than a task
    )
    command = [sys.executable, "-c", program, supervisor.__file__]
    worker = subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.PIPE, preexec_fn=hear_interrupts)
    try:
        deadline = time.monotonic() + 60
        while not pid_of(tmp_path / "run"):
            assert worker.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        assert is_training(tmp_path / "run")
        worker.send_signal(ending)
        while is_training(tmp_path / "run"):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert ending == signal.SIGKILL or worker.poll() is None
    finally:
        worker.kill()
        worker.communicate()


def test_what_no_machine_has_is_refused() -> None:
    available = {"CPU": 2.0}
    check_resources([replace(RUN, cpus=2)], available)
    with pytest.raises(ValueError, match=r"needs 3 CPUs; this machine has 2\. Reduce --cpus-per-run\."):
        check_resources([RUN, replace(RUN, cpus=3)], available)
    with pytest.raises(ValueError, match=r"needs 0\.5 GPUs; this machine has 0\. Reduce --gpus-per-run\."):
        check_resources([replace(RUN, gpus=0.5)], available)


def test_progress_is_read_from_evaluations_and_the_log(tmp_path: Path) -> None:
    assert progress_of(tmp_path) == (None, "")
    evaluations = {"timesteps": np.array([50, 100]), "results": np.array([[-9.0, -7.0], [-3.0, -2.0]])}
    np.savez(tmp_path / "evaluations.npz", **evaluations)
    assert progress_of(tmp_path) == (100, "return -2.5")
    np.savez(tmp_path / "evaluations.npz", **evaluations, successes=np.array([[True, True], [True, False]]))
    assert progress_of(tmp_path) == (100, "success 50 %")
    (tmp_path / supervisor.LOG).write_text("|    total_timesteps | 110   |\n|    total_timesteps | 120   |\nlast\n")
    assert progress_of(tmp_path) == (120, "success 50 %")
    (tmp_path / "evaluations.npz").write_bytes((tmp_path / "evaluations.npz").read_bytes()[:100])  # half written
    assert progress_of(tmp_path) == (120, "")
    assert last_lines(tmp_path, 2) == ["|    total_timesteps | 120   |", "last"]


def test_plain_lines_say_how_far_all_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sb3_flow.tables.display.LINE_INTERVAL", 0)
    np.savez(tmp_path / "evaluations.npz", timesteps=[50], results=[[1.0]])
    states = [State(RUN, "done"), State(replace(RUN, folder=tmp_path, seed=7), "running", attempts=2), State(RUN)]
    Display(states).update()
    assert capsys.readouterr().out.splitlines() == [
        "1 of 3 runs done, 1 running, 0 failed, 0:00:00 elapsed",
        "  fql Pendulum-v1 seed 7  50 / 100  return 1.0  start 2",
    ]
    assert duration(3723.9) == "1:02:03"


@pytest.mark.parametrize("option", ["--cpus-per-run=0", "--gpus-per-run=-1", "--cpus-per-run=x"])
def test_impossible_resources_are_refused(option: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["sweep", "table.yml", option])
    assert caught.value.code == 2


class Task:
    """A task of Ray: it only records what it was started with."""

    def __init__(self) -> None:
        self.started: list[dict[str, Any]] = []

    def options(self, **resources: Any) -> "Task":
        return self

    def remote(self, runs: dict[str, Any], command: tuple[str, ...], *_: Any) -> int:
        self.started.append({"folders": list(runs), "command": command})
        return len(self.started) - 1


def ended(code: int) -> Any:
    """A Ray whose tasks have ended with an exit code."""
    errors = SimpleNamespace(RayTaskError=OSError, RayError=RuntimeError)
    return SimpleNamespace(get=lambda reference: code, exceptions=errors)


def seeds(tmp_path: Path) -> list[Run]:
    command = ("train", "--algo=fql", "--num-threads=1")
    return [
        replace(
            RUN,
            seed=seed,
            folder=tmp_path / str(seed),
            command=(*command, f"--seed={seed}", f"--run-id={seed + 1}"),
            seeds_per_process=2,
        )
        for seed in (0, 1)
    ]


def test_seeds_of_one_process_are_restarted_together_or_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Together after a crash, in processes of their own after an error: then each has its own message."""
    sweep, task = Sweep(seeds(tmp_path), set(), max_retries=1), Task()
    sweep._submit(task, sweep.states)
    together = {
        "folders": [str(tmp_path / "0"), str(tmp_path / "1")],
        "command": ("train", "--seeds", "0", "1", "--algo=fql", "--num-threads=1"),
    }
    assert task.started == [together]
    sweep._collect(ended(-9), task, 0)
    assert task.started == [together, together]
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / supervisor.LOG).write_text("sb3-flow: Seeds of X cannot train together\n")
    sweep._collect(ended(2), task, 1)
    assert [start["command"] for start in task.started[2:]] == [run.command for run in seeds(tmp_path)]
    assert "in a process of its own: sb3-flow: Seeds of X cannot train together" in capsys.readouterr().out
    sweep._collect(ended(0), task, 2)
    sweep._collect(ended(2), task, 3)
    assert [state.status for state in sweep.states] == ["done", "failed"] and len(task.started) == 4


@posix_only
def test_the_records_of_seeds_of_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each run is finished, and keeps the command that trains it alone, so that `seeds_per_process` may change."""
    first, second = seeds(tmp_path)
    supervisor.write_record(record(first.folder).folder, {"command": first.command, "finished": True, "seconds": 1.0})
    started: list[list[str]] = []

    def popen(command: list[str], **_: Any) -> Any:
        started.append(command)
        return SimpleNamespace(pid=1, poll=lambda: 0, wait=lambda timeout: 0)

    monkeypatch.setattr(subprocess, "Popen", popen)
    commands = {str(run.folder): run.command for run in (first, second)}
    assert supervisor.supervise(commands, ["train", "--seeds", "0", "1"], str(tmp_path), 1, "name") == 0
    assert started[0][-3:] == ["--seeds", "0", "1"]
    assert check_folders([first, second]) == {first, second}
    assert (supervisor.read_record(first.folder) or {})["seconds"] == 1.0  # another sweep had finished it
    assert (second.folder / supervisor.LOG).exists()
    assert supervisor.supervise(commands, ["train", "--seeds", "0", "1"], str(tmp_path), 1, "name") == 0
    assert len(started) == 1
