"""Meanings of the columns of a dataset: one table of names for each dialect."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import NamedTuple


class Meaning(Enum):
    """Meaning of a column."""

    OBSERVATION = "the observation"
    NEXT_OBSERVATION = "the next observation"
    ACTION = "the action"
    REWARD = "the reward of the action"
    TERMINATION = "1 where the task ended: nothing is bootstrapped"
    MASK = "0 where the task ended: nothing is bootstrapped"
    LIMIT = "1 at the last row of an episode that was cut, for instance by a time limit"
    END = "1 at the last row of an episode, for any reason"
    DONE = "1 at the last row of an episode, for any reason; the time limits are in another column"
    FINAL_STATE = "1 where the row has only the last observation of an episode"
    START = "1 at the first row of an episode"
    EPISODE = "the number of the episode of the row"
    EPISODE_ENDS = "for each episode, the number of rows up to its end"
    EPISODE_LENGTHS = "for each episode, its number of rows"
    STEP = "the number of the row in its episode"
    TIME = "the time at which the row was recorded"
    VALID = "0 where the row is not a transition"
    INFORMATION = "not used"
    # If these are present, the first row has only an observation.
    ACTION_BEFORE = "the action that led to the observation of the row"
    REWARD_BEFORE = "the reward of that action"
    DISCOUNT_BEFORE = "0 where that action ended the task"


class Dialect(NamedTuple):
    """
    Names of the columns of one format.

    :param package: The package that writes them; empty if there is none
    :param version: Its version whose data the tests read; empty if they read arrays under these names only
    :param fields: The meaning of each name
    """

    package: str
    version: str
    fields: Mapping[str, Meaning]


_COLUMNS = {
    "observations": Meaning.OBSERVATION,
    "next_observations": Meaning.NEXT_OBSERVATION,
    "actions": Meaning.ACTION,
    "rewards": Meaning.REWARD,
}

#: The supported dialects. ``resolve`` handles names with different meanings in different dialects.
DIALECTS: dict[str, Dialect] = {
    "Gymnasium": Dialect(
        "minari",
        "0.5.4",
        {**_COLUMNS, "terminations": Meaning.TERMINATION, "truncations": Meaning.LIMIT, "infos": Meaning.INFORMATION},
    ),
    "D4RL": Dialect(
        "d4rl",
        "",
        {
            **_COLUMNS,
            "terminals": Meaning.TERMINATION,
            "timeouts": Meaning.LIMIT,
            "infos": Meaning.INFORMATION,
            "metadata": Meaning.INFORMATION,
        },
    ),
    "OGBench": Dialect(
        "ogbench",
        "1.2.2",
        {
            **_COLUMNS,
            "terminals": Meaning.END,
            "masks": Meaning.MASK,
            "valids": Meaning.VALID,
            "qpos": Meaning.INFORMATION,
            "qvel": Meaning.INFORMATION,
            "button_states": Meaning.INFORMATION,
            "oracle_reps": Meaning.INFORMATION,
        },
    ),
    "RLDS": Dialect(
        "tensorflow-datasets",
        "4.9.10",
        {
            "observation": Meaning.OBSERVATION,
            "action": Meaning.ACTION,
            "reward": Meaning.REWARD,
            "is_first": Meaning.START,
            "is_last": Meaning.FINAL_STATE,
            "is_terminal": Meaning.TERMINATION,
            "discount": Meaning.INFORMATION,
        },
    ),
    "Diffusion Policy": Dialect(
        "zarr",
        "3.1.6",
        {"action": Meaning.ACTION, "obs": Meaning.OBSERVATION, "episode_ends": Meaning.EPISODE_ENDS},
    ),
    "robomimic": Dialect(
        "robomimic",
        "0.3.0",
        {
            "obs": Meaning.OBSERVATION,
            "next_obs": Meaning.NEXT_OBSERVATION,
            "actions": Meaning.ACTION,
            "rewards": Meaning.REWARD,
            "dones": Meaning.TERMINATION,
            "states": Meaning.INFORMATION,
        },
    ),
    "LeRobot": Dialect(
        "lerobot",
        "0.6.1",
        {
            "observation": Meaning.OBSERVATION,
            "action": Meaning.ACTION,
            "next.reward": Meaning.REWARD,
            "next.done": Meaning.TERMINATION,
            "next.truncated": Meaning.LIMIT,
            "next.success": Meaning.INFORMATION,
            "episode_index": Meaning.EPISODE,
            "frame_index": Meaning.STEP,
            "timestamp": Meaning.TIME,
            "index": Meaning.INFORMATION,
            "task_index": Meaning.INFORMATION,
        },
    ),
    "CORL": Dialect(
        "",
        "",
        {
            **_COLUMNS,
            "terminals": Meaning.TERMINATION,
            "masks": Meaning.MASK,
            "dones_float": Meaning.END,
            "next_actions": Meaning.INFORMATION,
        },
    ),
    "Stable-Baselines3": Dialect(
        "stable-baselines3",
        "2.9.2",
        {
            **_COLUMNS,
            "dones": Meaning.DONE,
            "timeouts": Meaning.LIMIT,
            "episode_starts": Meaning.START,
            "values": Meaning.INFORMATION,
            "log_probs": Meaning.INFORMATION,
            "advantages": Meaning.INFORMATION,
            "returns": Meaning.INFORMATION,
        },
    ),
    "ExORL": Dialect(
        "",
        "",
        {
            "observation": Meaning.OBSERVATION,
            "action": Meaning.ACTION_BEFORE,
            "reward": Meaning.REWARD_BEFORE,
            "discount": Meaning.DISCOUNT_BEFORE,
            "physics": Meaning.INFORMATION,
        },
    ),
    "d3rlpy": Dialect(
        "d3rlpy",
        "2.8.1",
        {
            **_COLUMNS,
            "terminals": Meaning.TERMINATION,
            "timeouts": Meaning.LIMIT,
            "episode_terminals": Meaning.END,
            "discrete_action": Meaning.INFORMATION,
            "version": Meaning.INFORMATION,
        },
    ),
}

#: Dialects whose rows have an action and the observation before it.
_ROWWISE = [dialect for name, dialect in DIALECTS.items() if name != "ExORL"]

#: Other common names of these columns.
SYNONYMS: dict[str, Meaning] = {
    **dict.fromkeys(("obs", "observation"), Meaning.OBSERVATION),
    **dict.fromkeys(("next_obs", "next_observation", "obs_next"), Meaning.NEXT_OBSERVATION),
    **dict.fromkeys(("action", "act", "acts"), Meaning.ACTION),
    **dict.fromkeys(("reward", "rew", "rews"), Meaning.REWARD),
    **dict.fromkeys(("termination", "terminated", "terminateds"), Meaning.TERMINATION),
    **dict.fromkeys(("truncation", "truncated", "truncateds", "timeout"), Meaning.LIMIT),
    **dict.fromkeys(("ends", "is_end", "episode_end", "trajectory_ends"), Meaning.END),
    **dict.fromkeys(("is_start", "starts", "episode_start", "trajectory_starts", "first"), Meaning.START),
    **dict.fromkeys(
        ("episode", "episodes", "episode_id", "episode_ids", "episode_idx", "traj_id", "traj_ids", "traj_index"),
        Meaning.EPISODE,
    ),
    **dict.fromkeys(
        ("trajectory", "trajectory_id", "trajectory_ids", "trajectory_index", "demo_id", "path_id"), Meaning.EPISODE
    ),
    **dict.fromkeys(
        ("episode_lengths", "traj_lengths", "trajectory_lengths", "lengths", "ep_lengths"), Meaning.EPISODE_LENGTHS
    ),
    **dict.fromkeys(
        ("step", "steps", "step_id", "step_index", "timestep", "timesteps", "time_step", "time_steps", "frame"), Meaning.STEP
    ),
    **dict.fromkeys(("timestamps", "time", "times", "t"), Meaning.TIME),
    "valid": Meaning.VALID,
    **dict.fromkeys(("info", "name", "episode_seed", "episode_dropped", "episode_route"), Meaning.INFORMATION),
}

#: Ambiguous names with their possible meanings. They are refused unless other columns determine the meaning.
AMBIGUOUS: dict[str, str] = {
    "dones": "whether the task ended there (then name it `terminations`) or only the episode did (then add `timeouts`)",
    "mask": "which rows are transitions (then name it `valids`) or where the task went on (then name it `masks`)",
    "state": "what the policy observes (then name it `observations`) or the simulator's state (then leave it out)",
}
_SAME = {"done": "dones", "terminal": "terminals", "terminate": "terminals"}


class Field(NamedTuple):
    """
    A column that is used.

    :param name: Name in the data
    :param meaning: Its meaning
    """

    name: str
    meaning: Meaning


def resolve(names: Iterable[str]) -> list[Field]:
    """
    Determine the meanings of the columns of a dataset.

    Two names have different meanings in different dialects. ``terminals`` marks the ends of episodes in OGBench, and the end
    of the task otherwise. The first applies beside ``masks`` or ``valids``, and beside ``qpos`` without rewards (OGBench's
    files). ``dones`` marks the ends of episodes, including time limits, beside ``masks``, a column of terminations, or a
    column of time limits.

    :param names: The names in the data
    :return: The columns with a known meaning, in their order; ``INFORMATION`` columns are irrelevant.
    """
    names = list(names)
    table = {name: meaning for dialect in _ROWWISE for name, meaning in dialect.fields.items()} | SYNONYMS
    canonical = {name: _SAME.get(name, name) for name in names}
    present = set(canonical.values())
    table["terminals"] = Meaning.END if is_ogbench(present) or present & {"masks", "valids"} else Meaning.TERMINATION
    meanings = {table[name] for name in present if name in table and name not in ("dones", "terminals")}
    says_termination = bool(meanings & {Meaning.MASK, Meaning.TERMINATION}) or (
        table["terminals"] is Meaning.TERMINATION and ("terminals" in present)
    )
    table["dones"] = Meaning.END if says_termination else Meaning.DONE
    return [Field(name, table[canonical[name]]) for name in names if canonical[name] in table]


def is_ogbench(names: Iterable[str]) -> bool:
    """
    Whether these are the columns of an OGBench file: one row per state, so that each row with ``terminals`` has only the last
    observation of its episode.

    :param names: The names in the data
    """
    names = set(names)
    others = {"rewards", "next_observations", "valids", "timeouts", "truncations"}
    return {"terminals", "qpos"} <= names and not others & names
