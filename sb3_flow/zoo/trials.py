"""
Trials of Optuna whose processes were killed.

A killed process leaves its trial in the state RUNNING: it counts for ``--max-total-trials``, and samplers avoid its
parameters. So each trial records its process and, every minute, the time. When a study is opened again, dead trials are
marked as failed.
"""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sb3_flow.common.optional import require

#: User attributes of a trial: its process, and the last time at which it was alive, in seconds since 1970.
WORKER, ALIVE = "worker", "alive"
#: Seconds between two records of the time, and seconds without a record after which a trial is dead.
INTERVAL, PATIENCE = 60.0, 600.0


@contextmanager
def alive(trial: Any) -> Iterator[None]:
    """
    Record that the process of a trial is alive, until the trial ends.

    :param trial: The trial
    """
    trial.set_user_attr(ALIVE, time.time())  # first: a trial with a process must not be without a time
    trial.set_user_attr(WORKER, {"host": socket.gethostname(), "pid": os.getpid()})
    ended = threading.Event()

    def record() -> None:
        while not ended.wait(INTERVAL):
            trial.set_user_attr(ALIVE, time.time())

    thread = threading.Thread(target=record, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def fail_dead_trials(study: Any) -> list[int]:
    """
    Mark trials as failed whose processes were killed. Call this before the first trial of this process.

    :param study: The study
    :return: The numbers of these trials
    """
    state = require("optuna.trial", "zoo", "The command line of RL Zoo").TrialState
    dead = [trial.number for trial in study.get_trials(states=[state.RUNNING]) if is_dead(trial.user_attrs)]
    for number in dead:
        study.tell(number, state=state.FAIL, skip_if_finished=True)
    return dead


def is_dead(attributes: dict[str, Any]) -> bool:
    """
    Whether the process of a running trial was killed.

    :param attributes: User attributes of the trial; trials of other programs have no process, and are left alone
    :return: True if its process on this machine has ended, or if it has not recorded the time for ``PATIENCE`` seconds
    """
    worker, last = attributes.get(WORKER), attributes.get(ALIVE)
    if worker is None or last is None:
        return False
    if worker["host"] == socket.gethostname() and not is_other_process(worker["pid"]):
        return True
    return bool(time.time() - last > PATIENCE)


def is_other_process(pid: int) -> bool:
    """Whether another process of this machine has this id."""
    if pid == os.getpid():  # as in a container that was started again
        return False
    if os.name == "nt":  # os.kill would end the process; the time decides
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
