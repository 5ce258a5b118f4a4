"""The table of a study: all evaluations of all runs in one CSV file, from which ``sb3-flow report`` makes the page."""

from __future__ import annotations

import csv
import difflib
import io
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from sb3_flow.common.files import atomic_write
from sb3_flow.tables.records import ARRAYS, MEASURE, RunRecord, interrupted

#: File name of the table.
TABLE = "evaluations.csv"
#: Columns that identify a run; hyperparameters and conditions, which are in the row of its first evaluation.
RUN, CONDITIONS = ("setting", "algorithm", "environment", "run"), ("config", "system")
REQUIRED = (*RUN, "timesteps", "results")
#: Columns with one number in a cell; all other arrays have one number per episode, separated by spaces.
SINGLE = ("timesteps", "seconds")


def is_table(file: Path) -> bool:
    """
    Whether a file is a table.

    :param file: A file
    :return: True if it starts with the columns that identify a run
    """
    with file.open("rb") as stream:
        return stream.readline().startswith(",".join(RUN).encode())


def write_table(records: Iterable[RunRecord], file: Path) -> None:
    """
    Write evaluations: one row for each evaluation of each run. Numbers are not rounded.

    :param records: The runs
    :param file: The CSV file
    """
    records = list(records)
    found = list(dict.fromkeys(name for record in records for name in record.arrays))
    columns = [*(name for name in ARRAYS if name in found), *(name for name in found if name.startswith(MEASURE))]
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*RUN, *columns, *CONDITIONS])
    for record in records:
        conditions = [json.dumps(values, default=str) if values else "" for values in (record.config, record.system)]
        for index in range(len(record.arrays["timesteps"])):
            cells = [_cell(record.arrays[name][index]) if name in record.arrays else "" for name in columns]
            run = [record.setting, record.algorithm, record.env, record.run_id]
            writer.writerow([*run, *cells, *(conditions if index == 0 else ["", ""])])
    with atomic_write(file) as stream:
        stream.write(text.getvalue().encode())


def _cell(values: np.ndarray) -> str:
    return " ".join(repr(value).removesuffix(".0") for value in np.atleast_1d(values * 1).tolist())


def read_table(file: Path) -> list[RunRecord]:
    """
    Read evaluations.

    :param file: A CSV file that ``write_table`` has written
    :return: The runs
    :raises ValueError: If it is damaged, is another table, or has duplicate evaluations; the message names line and column.
    """
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            reader = csv.DictReader(stream)
            columns = list(reader.fieldnames or ())
            _check_columns(columns, file)
            rows: dict[tuple[str, ...], list[tuple[int, dict[str, str]]]] = {}
            for row in reader:
                if len(row) > len(columns) or None in row.values():
                    raise ValueError(f"{file}, line {reader.line_num} is damaged: expected {len(columns)} cells.")
                rows.setdefault(tuple(row[name] for name in RUN), []).append((reader.line_num, row))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{file} is not a table of evaluations: {error}") from error
    if not rows:
        raise ValueError(f"{file} has no evaluations.")
    arrays = [name for name in columns if name not in (*RUN, *CONDITIONS)]
    return [_read_run(file, found, arrays) for found in rows.values()]


def _check_columns(columns: list[str], file: Path) -> None:
    missing = [name for name in REQUIRED if name not in columns]
    if missing:
        raise ValueError(
            f"{file} is not a table of evaluations: it has no column {', '.join(f'`{name}`' for name in missing)}. "
            f"`sb3-flow report RUNS --output FOLDER` writes such a table as FOLDER/{TABLE}."
        )
    known = [*RUN, *ARRAYS, *CONDITIONS]
    for name in columns:
        if columns.count(name) > 1:
            raise ValueError(f"{file} has the column `{name}` twice; keep one.")
        if name not in known and not name.startswith(MEASURE):
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean `{close[0]}`?" if close else f"names of measures start with `{MEASURE}`."
            raise ValueError(f"{file} has an unknown column `{name}`; {hint}")


def _read_run(file: Path, rows: list[tuple[int, dict[str, str]]], columns: list[str]) -> RunRecord:
    line, first = rows[0]
    arrays = {}
    for name in columns:
        lists = [_numbers(file, number, name, row[name]) for number, row in rows if row[name]]
        if not lists:
            continue
        if len(lists) < len(rows):
            raise ValueError(f"{file}, line {line}: `{name}` is empty in some rows of this run; fill all rows or none.")
        if len({len(values) for values in lists}) > 1:
            raise ValueError(f"{file}, line {line}: all evaluations of this run must have the same number of `{name}`.")
        arrays[name] = np.array([values[0] for values in lists] if name in SINGLE else lists)
    try:
        run_id = int(first["run"])
        config, system = (_mapping(name, first.get(name, "")) for name in CONDITIONS)
        names = first["setting"], first["algorithm"], first["environment"], run_id
        return RunRecord(*names, arrays, config, system, interrupted(system))
    except ValueError as error:
        raise ValueError(f"{file}, line {line}: {error}") from error


def _numbers(file: Path, line: int, name: str, cell: str) -> list[Any]:
    """The numbers in a cell."""
    kinds: dict[str, Callable[[str], Any]] = {"timesteps": int, "ep_lengths": int, "successes": _success}
    try:
        values = [kinds.get(name, float)(word) for word in cell.split(" ")]
    except ValueError as error:
        raise ValueError(f"{file}, line {line}, `{name}`: {error}") from error
    if name in SINGLE and len(values) > 1:
        raise ValueError(f"{file}, line {line}, `{name}`: expected one number, found {len(values)}.")
    return values


def _success(word: str) -> float:
    if not 0 <= float(word) <= 1:
        raise ValueError(f"expected a number from 0 to 1 for each episode, found {word!r}.")
    return float(word)


def _mapping(name: str, cell: str) -> dict[str, Any]:
    try:
        values = json.loads(cell or "{}")
    except ValueError as error:
        raise ValueError(f"`{name}` is not valid JSON: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"`{name}` is {cell}; expected a JSON object.")
    return values
