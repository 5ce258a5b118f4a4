"""
Where episodes begin and end, which rows are transitions, and where the task ended.

The rule is the same for all sources. Several columns may determine where episodes end:

- Complete columns mark every end: the number of the episode, the first rows, the ends or lengths of the episodes, RLDS's
  last steps. Several such columns must agree.
- Partial columns mark some or all ends: time limits, flags of ends, counters of steps and clocks that start again. If there
  is a complete column, they must not mark other ends.
- Without such columns, an episode ends where ``next_observations`` is not the observation of the next row.
- The end of the task (``terminations``) ends an episode if there is no complete column, unless it is known from ``masks``
  only: OGBench's play data continues after a success.
- Data without any of these is refused.

The last row of an episode is a transition if its next observation was recorded (in ``next_observations``, or in a row after it
that has only the last observation), or if the task ended there, so that none is needed. Otherwise imitation uses its action,
but its value cannot be learned.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from sb3_flow.common.data.columns import DatasetError, Observations, parts, short
from sb3_flow.common.data.fields import AMBIGUOUS, Field, Meaning

#: A time between two rows above this multiple of the usual one is an interruption of the recording.
INTERRUPTION = 10.0
#: A time above this multiple of the usual one means that frames were lost.
LOST_FRAMES = 1.5
#: Larger rows are compared only if no other column determines the ends.
QUICK_BYTES = 4096
#: Evidence that may be incomplete.
UNCERTAIN = TASK, RECORDING = "the end of the task", "the end of the recording"
SUCCESSORS = "`next_observations`, which is not the next row's observation there"
#: Share of the rows that is most of them.
MOST = 0.9
#: Advice if no column determines the ends.
ADVICE = (
    "Add `truncations` (1 at the last row of each recording that was cut), the number of the episode of each row "
    "(`episode_index`), or `next_observations`. One recording alone: pass it in a list, `dataset=[...]`."
)


@dataclass
class Episodes:
    """
    Flags of the rows, each ``(N,)`` of bool.

    :param terminations: The task ended here
    :param ends: The last row of an episode, or of a part of one before a gap
    :param has_action: Whether the action of the row was taken
    :param final_states: Whether the row has only the last observation of an episode
    :param valids: Whether the row is a transition: its next observation is known, or the task ended
    :param evidence: Description of the columns that determine the ends
    :param remarks: Remarks about the data
    :param doubts: Those that are probably mistakes
    """

    terminations: np.ndarray
    ends: np.ndarray
    has_action: np.ndarray
    final_states: np.ndarray
    valids: np.ndarray
    evidence: str
    remarks: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)


@dataclass
class Recording:
    """
    The columns that ``find_episodes`` reads.

    :param name: Name of the data for messages
    :param length: ``N``, number of rows
    :param columns: Each column that has a meaning, with its name
    :param observations: As in a dataset
    :param next_observations: As in a dataset, or None
    :param rewards: ``(N,)``, or None
    :param final_states: ``(N,)`` of bool: rows that have only the last observation, if the format defines them
    :param single: Whether the data is one episode if no column determines the ends
    """

    name: str
    length: int
    columns: Sequence[tuple[Field, np.ndarray]]
    observations: Observations
    next_observations: Observations | None = None
    rewards: np.ndarray | None = None
    final_states: np.ndarray | None = None
    single: bool = False

    def of(self, *meanings: Meaning) -> Iterable[tuple[Field, np.ndarray]]:
        """The columns with some meanings."""
        return ((column, values) for column, values in self.columns if column.meaning in meanings)

    def flags(self, *meanings: Meaning) -> dict[str, np.ndarray]:
        """The columns with some meanings as booleans, by name."""
        return {column.name: as_flags(values, column.name, self.length, self.name) for column, values in self.of(*meanings)}

    @property
    def seen(self) -> str:
        """The names of the columns about episodes."""
        others = (Meaning.OBSERVATION, Meaning.NEXT_OBSERVATION, Meaning.ACTION, Meaning.REWARD, Meaning.INFORMATION)
        names = [f"`{column.name}`" for column, _ in self.columns if column.meaning not in others]
        return ", ".join(names) or "no column about episodes"


def find_episodes(data: Recording) -> Episodes:
    """
    Find the episodes by the rule above.

    :param data: The columns
    :return: The flags of the rows
    :raises DatasetError: If columns contradict each other, or none determines where episodes end.
    """
    if data.length == 0:
        raise DatasetError(f"{data.name}: it has no transition (`actions` has 0 rows).")
    remarks: list[str] = []
    final_states = _final_states(data, remarks)
    terminations = _terminations(data)
    doubts = _doubtful_limits(data, terminations)
    whole = _every_end(data, final_states)
    some = _some_ends(data)
    ends, evidence = _combine(data, whole, some, terminations, final_states)
    _check_successors(data, terminations if ends is None else terminations | ends)
    if ends is None:
        ends, evidence = _from_successors_or_terminations(data, terminations)
        if evidence == SUCCESSORS and np.count_nonzero((ends & ~terminations)[:-1]) > MOST * (data.length - 1):
            doubts.append(
                f"nearly each row is an episode of its own, by {evidence}. This is right if the rows are shuffled; otherwise "
                "correct `next_observations`, or leave it out and add `truncations`"
            )
    elif (jumps := _jumps(data, quick=True)) is not None:
        inside = jumps & ~ends & ~terminations
        if 0 < np.count_nonzero(inside) <= np.count_nonzero(~ends) / 2:
            remarks.append(
                f"{_rows(inside)}: `next_observations` is not the next row's observation, so the episode is cut there, "
                "although no other column says so"
            )
            ends = ends | inside
        elif inside.any():
            doubts.append(
                "`next_observations` differs from the next row's observation in most rows, although these belong to one "
                f"episode by {evidence}. Single steps use `next_observations`; chunks and histories use the next rows"
            )
    ends = ends | _gaps(data, ends, remarks)
    episodes = _rows_of_episodes(data, terminations, ends, final_states, evidence, [*remarks, *doubts])
    episodes.doubts = doubts
    return episodes


def _check_successors(data: Recording, ends: np.ndarray) -> None:
    """Reject next observations that are the observations themselves, unless these do not change before the known ends."""
    if data.next_observations is None:
        return
    now, then = parts(data.observations), parts(data.next_observations)
    moves = False
    for key in now.keys() & then.keys():
        if now[key].shape != then[key].shape or len(now[key]) != data.length:
            return  # is refused later, with a better message
        for start in range(0, data.length, 4096):
            block, inside = now[key][start : start + 4097], ~ends[start : start + 4096]
            if (block[: len(inside)] != then[key][start : start + 4096]).any():
                return
            changes = (block[1:] != block[:-1]).reshape(len(block) - 1, -1).any(axis=1)
            moves = moves or bool((changes & inside[: len(changes)]).any())
    if moves:
        raise DatasetError(
            f"{data.name}: `next_observations` is `observations` in each row. It must be the observation after the action; "
            "leave it out if the next row has it."
        )


def _doubtful_limits(data: Recording, terminations: np.ndarray) -> list[str]:
    """A doubt if each time limit is an end of the task, too."""
    limits = data.flags(Meaning.LIMIT)
    limit = np.logical_or.reduce([*limits.values(), np.zeros(data.length, dtype=bool)])
    if np.count_nonzero(limit) < 2 or (limit & ~terminations).any():
        return []
    return [
        f"the task ended at each time limit ({_names(limits)}), so that no value is bootstrapped there. If the other column "
        "marks all ends of episodes, name it `dones`"
    ]


def _terminations(data: Recording) -> np.ndarray:
    """Where the task ended. All columns about it must agree."""
    found = data.flags(Meaning.TERMINATION)
    found |= {name: ~flags for name, flags in data.flags(Meaning.MASK).items()}
    done = data.flags(Meaning.DONE)
    limits = data.flags(Meaning.LIMIT)
    for name, flags in done.items():
        if not limits:
            found |= _done_without_limits(data, name, flags)
            continue
        limit = np.logical_or.reduce(list(limits.values()))
        # If a limit is not a `done`, this column marks only ends of the task, also those at a time limit.
        found[name] = flags if (limit & ~flags).any() else flags & ~limit
    _check_agreement(data, found, "where the task ended")
    return next(iter(found.values())).copy() if found else np.zeros(data.length, dtype=bool)


def _done_without_limits(data: Recording, name: str, flags: np.ndarray) -> dict[str, np.ndarray]:
    """``dones`` alone is the end of the task if episodes are known to end at other rows, too."""
    whole = _every_end(data, None)
    for ends in whole.values():
        if (ends & ~flags)[:-1].any() or not flags[-1]:
            return {name: flags}
    raise DatasetError(
        f"{data.name}: `{name}` does not say {AMBIGUOUS['dones']}. Seen: {data.seen}. For imitation, name it `truncations`."
    )


def _every_end(data: Recording, final_states: np.ndarray | None) -> dict[str, np.ndarray]:
    """The complete columns, as flags at the last rows of episodes."""
    found: dict[str, np.ndarray] = {}
    for name, starts in data.flags(Meaning.START).items():
        found[name] = np.append(starts[1:], True)[: data.length]
    for column, values in data.of(Meaning.EPISODE):
        found[column.name] = _changes(_one_a_row(values, column.name, data), column.name, data)
    for column, values in data.of(Meaning.EPISODE_ENDS, Meaning.EPISODE_LENGTHS):
        found[column.name] = _from_ends(values, column.name, data, column.meaning is Meaning.EPISODE_LENGTHS)
    for name, flags in data.flags(Meaning.FINAL_STATE).items():
        found[name] = flags.copy()
    if final_states is not None and not found and final_states.any():
        found["the rows of last observations"] = final_states.copy()
    for ends in found.values():
        ends[-1:] = True
    _check_agreement(data, found, "where episodes end")
    return found


def _some_ends(data: Recording) -> dict[str, np.ndarray]:
    """The partial columns, as flags at the last rows of episodes."""
    found = data.flags(Meaning.END, Meaning.LIMIT)
    if found:
        # Beside time limits, `dones` marks the other ends.
        found |= data.flags(Meaning.DONE)
    for column, values in data.of(Meaning.STEP, Meaning.TIME):
        steps = np.append(np.diff(_numbers(values, column.name, data)), 1)
        backwards = steps < 0
        if column.meaning is Meaning.STEP:  # in episodes of one step all numbers are equal
            backwards |= (steps == 0) & bool((steps[:-1] > 0).any())
        if backwards.any():
            _check_order(values, backwards, column.name, data)
            found[column.name] = backwards
    return found


def _check_order(values: np.ndarray, backwards: np.ndarray, name: str, data: Recording) -> None:
    """Reject rows that are not in the order of time: a counter or a clock goes back often, and not to its beginning."""
    numbers = _numbers(values, name, data)
    begins = numbers[1:][backwards[:-1]]
    if np.count_nonzero(backwards) < len(numbers) / 3 or len(begins) < 2:
        return
    if np.median(begins) > numbers.min() + 0.1 * np.ptp(numbers):
        raise DatasetError(
            f"{data.name}: the rows are not in the order of time: `{name}` goes back at {np.count_nonzero(backwards):,} of "
            f"{len(numbers):,} rows. Sort them by episode and time."
        )


def _combine(
    data: Recording,
    whole: dict[str, np.ndarray],
    some: dict[str, np.ndarray],
    terminations: np.ndarray,
    final_states: np.ndarray,
) -> tuple[np.ndarray | None, str]:
    """The ends that columns mark, and the names of these columns; None without such columns."""
    if whole:
        ends = next(iter(whole.values())).copy()
        for name, flags in some.items():
            wrong = flags & ~ends & ~np.append(final_states[1:], False)[: data.length]
            if wrong.any():
                row, others = int(wrong.argmax()), " and ".join(f"`{other}`" for other in whole)
                raise DatasetError(
                    f"{data.name}: `{name}` ends an episode at row {row}, but {others} say that it continues. Seen: "
                    f"{data.seen}. Leave out the column that is wrong."
                )
        return ends, _names(whole)
    if some:
        ends = np.logical_or.reduce(list(some.values()))
        explicit = terminations & _ends_the_episode(data)
        if not ends.any():  # columns of time limits without any mark, perhaps because limits were not recorded
            return explicit, TASK if explicit.any() else RECORDING
        return ends | explicit, _names([*some, *data.flags(Meaning.TERMINATION)])
    return None, ""


def _ends_the_episode(data: Recording) -> bool:
    """Whether an end of the task ends the episode: not if it is known from masks only."""
    return bool(data.flags(Meaning.TERMINATION, Meaning.DONE))


def _from_successors_or_terminations(data: Recording, terminations: np.ndarray) -> tuple[np.ndarray, str]:
    """The ends without columns that mark them: from next observations, from ends of the task, or the last row only."""
    explicit = terminations & _ends_the_episode(data)
    invalid = data.flags(Meaning.VALID)
    for name, valids in invalid.items():
        if not valids.all():
            return explicit | ~valids | np.append(~valids[1:], True), _names([name, *data.flags(Meaning.TERMINATION)])
    jumps = _jumps(data)
    if jumps is not None:
        return explicit | jumps, SUCCESSORS
    if explicit.any():
        return explicit, TASK
    interruptions = _interruptions(data)
    if interruptions is not None:
        return interruptions, "the clock, where it stood still between recordings"
    if data.single or data.length == 1:
        return explicit.copy(), RECORDING
    raise DatasetError(
        f"{data.name}: nothing says where episodes end. Seen: {data.seen}"
        f"{', which marks no row' if data.flags(Meaning.TERMINATION) else ''}. {ADVICE}"
    )


def _jumps(data: Recording, quick: bool = False) -> np.ndarray | None:
    """As ``not_followed``; None without ``next_observations``. If ``quick``, images are not compared."""
    if data.next_observations is None:
        return None
    return not_followed(data.observations, data.next_observations, data.length, QUICK_BYTES if quick else None)


def not_followed(
    observations: Observations, next_observations: Observations, length: int, most: int | None = None
) -> np.ndarray:
    """
    Find the rows whose next observation is not the observation of the next row.

    :param observations: As in a dataset
    :param next_observations: As in a dataset
    :param length: ``N``, number of rows
    :param most: Parts with more bytes in a row are not compared; None: all are
    :return: ``(N,)`` of bool; False at the last row
    """
    now, then = parts(observations), parts(next_observations)
    found = np.zeros(length, dtype=bool)
    for key in now.keys() & then.keys():
        first, second = now[key], then[key]
        if first.shape != second.shape or len(first) != length:
            continue  # is refused later, with a better message
        if most is not None and first.nbytes > most * length:
            continue
        coarser = min(first.dtype, second.dtype, key=lambda dtype: dtype.itemsize)
        for start in range(0, length - 1, 4096):
            stop = min(start + 4096, length - 1)
            a, b = second[start:stop].astype(coarser, copy=False), first[start + 1 : stop + 1].astype(coarser, copy=False)
            found[start:stop] |= (a != b).reshape(stop - start, -1).any(axis=1)
    return found


def _interruptions(data: Recording) -> np.ndarray | None:
    """Where the time to the next row is much longer than usual; None if there is no such row."""
    for column, clock in data.of(Meaning.TIME):
        steps = np.diff(_numbers(clock, column.name, data))
        moved = steps[steps > 0]  # rows of a coarse clock have equal times
        late = np.append(steps > INTERRUPTION * np.median(moved), False) if len(moved) else np.zeros(1, dtype=bool)
        if late.any():
            return late
    return None


def _gaps(data: Recording, ends: np.ndarray, remarks: list[str]) -> np.ndarray:
    """Rows after which rows are missing, by their numbers or by the clock."""
    gaps = np.zeros(data.length, dtype=bool)
    for column, values in data.of(Meaning.STEP, Meaning.TIME):
        steps = np.diff(_numbers(values, column.name, data))
        inside = (steps > 0) & ~ends[:-1]
        if not inside.any():
            continue
        usual = float(np.median(steps[inside]))
        factor = 1.0 if column.meaning is Meaning.STEP else INTERRUPTION
        missing = np.append(inside & (steps > factor * usual), False)
        if missing.any():
            remarks.append(f"{_rows(missing)}: rows are missing after it, by `{column.name}`; the episode is cut there")
        late = np.append(inside & (steps > LOST_FRAMES * usual), False) & ~missing
        if late.any():
            remarks.append(f"{_rows(late)}: the next row is late, by `{column.name}` (frames were lost?)")
        gaps |= missing
    return gaps


def _final_states(data: Recording, remarks: list[str]) -> np.ndarray:
    """Rows that have only the last observation of an episode."""
    if data.final_states is not None:
        return data.final_states
    final = np.zeros(data.length, dtype=bool)
    for name, flags in data.flags(Meaning.FINAL_STATE).items():
        if data.next_observations is not None:
            continue  # then each row is a transition, and this is the last one
        if data.rewards is not None and len(data.rewards) == data.length and np.any(np.nan_to_num(data.rewards[flags]) != 0):
            remarks.append(f"`{name}`: the last steps have rewards, so they are steps, not only last observations")
            continue
        final |= flags
    return final


def _rows_of_episodes(
    data: Recording,
    terminations: np.ndarray,
    ends: np.ndarray,
    final_states: np.ndarray,
    evidence: str,
    remarks: list[str],
) -> Episodes:
    """Determine the transitions, given the ends."""
    length = data.length
    has_action = np.ones(length, dtype=bool)
    for flags in data.flags(Meaning.VALID).values():
        has_action &= flags
    final_states = final_states | _invalid_final_states(data, has_action)
    if any(True for _ in data.of(Meaning.FINAL_STATE)):
        # RLDS marks the end of the task at the last state: the action before it ended the task.
        terminations = terminations | np.append((terminations & final_states)[1:], False)
    has_action = has_action & ~final_states
    ends = ends | np.append(~has_action[1:], True)[:length]
    following = np.append(has_action[1:] & ~ends[:-1] | final_states[1:], False)[:length]
    known = np.ones(length, dtype=bool) if data.next_observations is not None else following
    valids = has_action & (known | terminations)
    lost = np.count_nonzero(has_action & ~valids)
    if lost:
        remarks.append(
            f"{lost:,} rows are steps without a successor: their episodes were cut, and the last observation was not "
            "recorded. Imitation uses them, reinforcement learning does not"
        )
    padding = np.count_nonzero(~has_action & ~final_states)
    if padding:
        remarks.append(f"{padding:,} rows are marked as no transitions, and are left out")
    return Episodes(terminations, ends, has_action, final_states, valids, evidence, remarks)


def _invalid_final_states(data: Recording, valids: np.ndarray) -> np.ndarray:
    """
    Rows that are not transitions, but have the last observation of the episode before them. OGBench has such rows, and marks
    them as ends, too. Other rows are padding or lost frames, without data.
    """
    invalid = ~valids
    if not invalid.any():
        return invalid
    after_valid = np.append(False, valids[:-1])
    alone: np.ndarray = invalid & after_valid & np.append(valids[1:], True)
    if (alone != invalid).any():
        return np.zeros_like(invalid)
    flagged = [*_some_ends(data).values(), *_every_end(data, None).values()]
    if not flagged:
        return np.zeros_like(invalid)
    marked = np.logical_or.reduce(flagged)
    final: np.ndarray = invalid & marked
    followed = final | np.append(final[1:], True)
    return final if followed[marked].all() else np.zeros_like(invalid)


def _check_agreement(data: Recording, found: dict[str, np.ndarray], what: str) -> None:
    names = list(found)
    for name in names[1:]:
        differ = found[names[0]] != found[name]
        if differ.any():
            row = int(differ.argmax())
            raise DatasetError(
                f"{data.name}: `{names[0]}` and `{name}` contradict each other about {what}, at row {row} first: "
                f"{'yes' if found[names[0]][row] else 'no'} and {'yes' if found[name][row] else 'no'}. Seen: {data.seen}. "
                "Leave out the column that is wrong."
            )


def _changes(numbers: np.ndarray, name: str, data: Recording) -> np.ndarray:
    """The last row of each run of equal numbers."""
    changes: np.ndarray = np.append(numbers[1:] != numbers[:-1], True)[: data.length]
    runs, episodes = np.count_nonzero(changes), len(set(numbers.tolist()))
    if runs > max(episodes, data.length / 2):
        raise DatasetError(
            f"{data.name}: the rows of an episode are not together: `{name}` changes {runs - 1:,} times between {episodes:,} "
            f"episodes. Sort the rows by it, keeping their order in time (numpy.argsort(..., kind='stable'))."
        )
    return changes


def _from_ends(values: np.ndarray, name: str, data: Recording, lengths: bool) -> np.ndarray:
    """Flags from the number of rows up to the end of each episode, or from the lengths of the episodes."""
    values = np.asarray(values).reshape(-1)
    if not lengths and values.dtype == bool and len(values) == data.length:
        return values.copy()
    whole = values.dtype.kind in "iuf" and np.all(values == np.floor(values))
    ends = np.cumsum(values) if lengths else values
    steps = np.diff(ends, prepend=0) if whole else np.zeros(0)
    if not whole or len(ends) == 0 or (steps <= 0).any() or ends[-1] != data.length:
        expected = (
            f"lengths that sum up to the number of rows, {data.length}"
            if lengths
            else f"rising numbers, the last one that of all rows, {data.length}"
        )
        raise DatasetError(f"{data.name}: `{name}` is {short(values)}; expected {expected}.")
    flags = np.zeros(data.length, dtype=bool)
    flags[ends.astype(np.int64) - 1] = True
    return flags


def as_flags(column: np.ndarray, name: str, length: int, data: str) -> np.ndarray:
    """
    A column of 0 and 1 as booleans.

    :param column: ``(N,)`` or ``(N, 1)``
    :param name: Name of the column
    :param length: ``N``
    :param data: Name of the data for messages
    :raises DatasetError: If it has other values, or another length.
    """
    column = np.asarray(column)
    if column.dtype.kind not in "fiub":
        raise DatasetError(f"{data}: `{name}` has {column.dtype} values; expected 0 or 1.")
    if column.ndim > 1 and column.size != len(column):
        raise DatasetError(f"{data}: `{name}` has the shape {column.shape[1:]} per row; expected one value.")
    column = column.reshape(-1)
    if len(column) != length:
        raise DatasetError(f"{data}: `{name}` has {len(column)} rows, but `actions` has {length}.")
    wrong = (column != 0) & (column != 1)
    if wrong.any():
        row = int(wrong.argmax())
        raise DatasetError(f"{data}: `{name}` row {row} is {column[row]}; expected 0 or 1.")
    return column.astype(bool)


def _one_a_row(column: np.ndarray, name: str, data: Recording) -> np.ndarray:
    column = np.asarray(column)
    if column.size != data.length:
        raise DatasetError(f"{data.name}: `{name}` has {short(column.shape)} values, but `actions` has {data.length} rows.")
    column = column.reshape(-1)
    missing = column != column  # NaN, also among texts
    if column.dtype.kind == "O":
        missing = missing | np.array([value is None for value in column])
    if np.any(missing):
        row = int(np.argmax(missing))
        raise DatasetError(f"{data.name}: `{name}` row {row} is {column[row]}; expected a value in each row.")
    return column


def _numbers(column: np.ndarray, name: str, data: Recording) -> np.ndarray:
    """A counter or a clock, in double precision."""
    column = _one_a_row(column, name, data)
    if column.dtype.kind == "M":
        column = column.astype("datetime64[ns]").astype(np.int64)
    if column.dtype.kind not in "fiub":
        raise DatasetError(f"{data.name}: `{name}` has {column.dtype} values; expected numbers that rise.")
    return column.astype(np.float64)


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" if " " not in name else name for name in dict.fromkeys(names))


def _rows(flags: np.ndarray) -> str:
    """Description of rows for messages: the first indices, and the number of others."""
    rows = np.flatnonzero(flags)
    listed = ", ".join(map(str, rows[:5]))
    return f"Row {listed}" if len(rows) == 1 else f"Rows {listed}{f' and {len(rows) - 5:,} more' if len(rows) > 5 else ''}"
