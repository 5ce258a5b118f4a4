"""``sb3-flow train --seeds 0 1 2``: several seeds of one setting in one process."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from sb3_flow.common.batched_gradients import BatchedGradients
from sb3_flow.common.turns import Ask, take_turns

#: Output of a run that trains together with others, in its folder.
LOG = "log.txt"


def train_seeds(script: Any, seeds: Sequence[int]) -> None:
    """
    Run RL Zoo's training script for each seed, with the command line of this process. The seeds take turns, and their
    gradients are computed together. Folder and numbers of a seed are those of ``--seed SEED --run-id SEED+1``, up to rounding.

    :param script: The module ``rl_zoo3.train``, whose ``ExperimentManager`` makes ``FlowExperimentManager``
    :param seeds: The seeds
    :raises ValueError: If the training of a seed failed. The others are completed first.
    """
    arguments, manager = sys.argv, script.ExperimentManager

    def training(seed: int) -> Callable[[Ask], None]:
        def train(ask: Ask) -> None:
            sys.argv = [*arguments, f"--seed={seed}"]
            script.ExperimentManager = partial(manager, run_id=seed + 1, ask=ask)
            try:
                script.train()
            except Exception:
                traceback.print_exc()  # to the log of this seed
                raise

        return train

    print(f"Seeds {', '.join(map(str, seeds))} train together. The output of each is in {LOG} in the folder of its run.")
    errors = take_turns([training(seed) for seed in seeds], BatchedGradients())
    failed = {seed: error for seed, error in zip(seeds, errors, strict=True) if error is not None}
    for seed, error in failed.items():
        if not isinstance(error, Exception):  # an interrupt, or an error in the command line
            raise error
        raise ValueError(f"{len(failed)} of {len(seeds)} seeds failed. Seed {seed}: {error}") from error
