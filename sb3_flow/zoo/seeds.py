"""``sb3-flow train --seeds 0 1 2``: several seeds of one setting in one process."""

from __future__ import annotations

import io
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from sb3_flow.common.batched_gradients import BatchedGradients
from sb3_flow.common.turns import Ask, take_turns
from sb3_flow.zoo.trust import reading

#: Output of a run that trains together with others, in its folder.
LOG = "log.txt"
#: Request of a seed that waits until all others are as far, or have failed.
READY = "ready"


class NotTrained(Exception):
    """A seed is not trained because another one failed before the training."""


class EarlyOutput(io.StringIO):
    """Output of a seed before the folder of its run is known."""


def open_log(folder: str | Path) -> None:
    """
    Write the output of the seed whose turn it is to the log of its run, also what it has printed so far.

    :param folder: The folder of the run
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    log, early = Path(folder, LOG).open("a", buffering=1, encoding="utf-8"), sys.stdout
    if isinstance(early, EarlyOutput):
        log.write(early.getvalue())
    sys.stdout = sys.stderr = log


def train_seeds(script: Any, seeds: Sequence[int], trusted: bool = False) -> None:
    """
    Run RL Zoo's training script for each seed, with the command line of this process. The seeds take turns, and their
    gradients are computed together. Folder and numbers of a seed are those of ``--seed SEED --run-id SEED+1``, up to rounding.

    The training starts when all seeds are ready: folders, settings, data and environments. If one of them is not, none is
    trained.

    :param script: The module ``rl_zoo3.train``, whose ``ExperimentManager`` makes ``FlowExperimentManager``
    :param seeds: The seeds
    :param trusted: Whether code in files that RL Zoo reads may run
    :raises ValueError: If a seed failed. If its training had started, the others are completed first.
    """
    arguments, manager, output = sys.argv, script.ExperimentManager, sys.stderr
    manager = partial(manager, random_seed=False, output=sys.stdout)
    failed: dict[int, BaseException] = {}
    gradients = BatchedGradients()

    def answer(requests: list[Any]) -> Sequence[Any]:
        return requests if requests[0] is READY else gradients(requests)

    def training(seed: int) -> Callable[[Ask], None]:
        def train(ask: Ask) -> None:
            def asking(request: Any) -> Any:
                answered = ask(request)
                if request is READY and failed:
                    raise NotTrained(f"Not trained, because seed {next(iter(failed))} failed.")
                return answered

            if failed and not isinstance(next(iter(failed.values())), Exception):
                raise NotTrained  # an error in the command line, which is that of all seeds

            sys.argv = [*arguments, f"--seed={seed}"]
            sys.stdout = sys.stderr = early = EarlyOutput()
            script.ExperimentManager = partial(manager, run_id=seed + 1, ask=asking)
            try:
                script.train()
            except NotTrained as error:
                print(error)  # to the log of this seed, if there is one
                raise
            except BaseException as error:
                failed[seed] = error
                started = sys.stdout is not early
                if isinstance(error, Exception) and (started or not isinstance(error, (ValueError, ImportError, OSError))):
                    traceback.print_exc()  # to the log of this seed; without one, errors with a message are reported below
                if not started and not isinstance(error, KeyboardInterrupt):
                    output.write(f"Output of seed {seed}, which was not trained:\n{early.getvalue()}")
                raise

        return train

    print(f"Seeds {', '.join(map(str, seeds))} train together. The output of each is in {LOG} in the folder of its run.")
    with reading(trusted):
        errors = take_turns([training(seed) for seed in seeds], answer)
    for error in failed.values():
        if not isinstance(error, Exception):  # an interrupt, or an error in the command line
            raise error
    if failed:
        groups: dict[str, list[str]] = {}
        for seed in (seed for seed in seeds if seed in failed):
            groups.setdefault(str(failed[seed]), []).append(str(seed))
        messages = " ".join(f"Seed{'s' * (len(own) > 1)} {', '.join(own)}: {error}" for error, own in groups.items())
        others = [str(seed) for seed, error in zip(seeds, errors, strict=True) if isinstance(error, NotTrained)]
        rest = f" Therefore not trained: {', '.join(others)}." if others else ""
        raise ValueError(f"{len(failed)} of {len(seeds)} seeds failed. {messages}{rest}") from next(iter(failed.values()))
