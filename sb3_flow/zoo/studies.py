"""Studies of Optuna: what they were started with, so that trials of another algorithm or other settings are not mixed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from sb3_flow.common.optional import require
from sb3_flow.common.warn import warn

#: User attribute of a study: the algorithm and the environment of its trials.
TRIALS_OF = "trials_of"
#: User attributes of a study that are no settings; RL Zoo writes the first, and makes the last from two settings.
OTHERS = {"command", TRIALS_OF, "action_noise", "noise_type", "noise_std"}


def open_study(storage: str, name: str) -> Any:
    """
    Open a study.

    :param storage: A journal file that ends with ``.log``, or the URL of a database
    :param name: Name of the study
    :return: The study; None if it does not exist
    """
    optuna = require("optuna", "zoo", "The command line of RL Zoo")
    place: Any = storage
    if storage.endswith(".log"):
        if not Path(storage).exists():
            return None
        place = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(storage))
    try:
        return optuna.load_study(study_name=name, storage=place)
    except KeyError:
        return None


def record(study: Any, algo: str, env: str, settings: Mapping[str, Any]) -> None:
    """
    Record in a study what its trials are of, if it is new.

    :param study: The study
    :param algo: Name of the algorithm
    :param env: Id of the environment
    :param settings: The hyperparameters, which search spaces read
    """
    for key, value in {TRIALS_OF: [algo, env], **{key: str(value) for key, value in settings.items()}}.items():
        if key not in study.user_attrs:
            study.set_user_attr(key, value)


def require_trials_of(study: Any, algo: str, env: str | None = None) -> None:
    """
    :param study: The study
    :param algo: Name of the algorithm
    :param env: Id of the environment; None: any
    :raises ValueError: If the study has trials of another algorithm or environment.
    """
    started = study.user_attrs.get(TRIALS_OF, (None, None))
    for before, now, option in zip(started, (algo, env), ("--algo", "--env"), strict=True):
        if None not in (before, now) and before != now:
            raise ValueError(
                f"The study {study.study_name!r} has trials with {option} {before}, and this command has {option} {now}. Pass "
                "another --study-name."
            )


def warn_about_settings(study: Any, settings: Mapping[str, Any], searched: Collection[str]) -> None:
    """
    Warn about settings that differ from those with which a study was started.

    :param study: The study
    :param settings: The hyperparameters
    :param searched: Names of those that are parameters of a trial
    """
    attributes, absent = study.user_attrs, "not given"
    if TRIALS_OF not in attributes:
        return  # of RL Zoo, or without a trial
    keys = sorted({*attributes, *settings} - OTHERS - {*searched})
    pairs = [(key, attributes.get(key, absent), str(settings.get(key, absent))) for key in keys]
    # Objects without a text of their own have an address, which is that of another process.
    if changed := [f"`{key}` was {old} and is {new}" for key, old, new in pairs if old != new and " at 0x" not in old]:
        warn(
            f"Other settings than in the study {study.study_name!r}: {', '.join(changed)}. The values of its trials depend on "
            "them: pass the same --conf-file and -params."
        )
