"""The table of evaluations: nothing is lost, and damaged files are refused."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from sb3_flow.tables.evaluations import read_records, read_runs
from sb3_flow.tables.records import RunRecord
from sb3_flow.tables.report import make_page
from sb3_flow.tables.table import TABLE, is_table, read_table, write_table

NUMBERS = np.random.default_rng(0)
#: Numbers that are easily changed on the way.
RESULTS = np.array([[1 / 3, -0.0, 1e300], [float("inf"), -220.0, 5e-324], [float("nan"), 0.1 + 0.2, 123456789.123]])


def records() -> list[RunRecord]:
    """A run with everything, in a setting, and one with the least."""
    arrays = {
        "timesteps": np.array([10, 20, 30]),
        "results": RESULTS,
        "ep_lengths": np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]]),
        "successes": np.array([[True, False, True], [False, False, False], [True, True, True]]),
        "seconds": np.array([float("nan"), 1.25, 2.0]),
        "measure_score": NUMBERS.normal(size=(3, 3)),
    }
    config = {"dataset": 'a, "b"', "policy_kwargs": {"net_arch": [8, 8]}, "alpha": 1e-5, "n_steps": None}
    full = RunRecord("noisy/small", "fql-bc_flow", "maze-a-v0", 2, arrays, config, {"torch": "2.1", "seconds": 61})
    least = {"timesteps": np.array([5]), "results": NUMBERS.normal(size=(1, 2))}
    return [full, RunRecord("", "sac", "Runner-v5", 1, least, {}, {})]


def assert_same(found: list[RunRecord], expected: list[RunRecord]) -> None:
    """Every number is equal bit by bit."""
    for one, other in zip(found, expected, strict=True):
        assert (str(one), one.config, one.system) == (str(other), other.config, other.system)
        assert one.arrays.keys() == other.arrays.keys()
        for name, array in other.arrays.items():
            np.testing.assert_array_equal(one.arrays[name], array)
            np.testing.assert_array_equal(np.signbit(one.arrays[name]), np.signbit(array))


def test_nothing_is_lost_on_the_way(tmp_path: Path) -> None:
    expected = records()
    write_table(expected, tmp_path / TABLE)
    assert_same(read_table(tmp_path / TABLE), expected)
    assert is_table(tmp_path / TABLE)
    once = (tmp_path / TABLE).read_bytes()
    write_table(read_table(tmp_path / TABLE), tmp_path / TABLE)
    assert (tmp_path / TABLE).read_bytes() == once


def test_folders_and_their_table_are_the_same(results: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Settings, conditions and measures included, and so is the page."""
    run = results / "fql" / "maze-a-v0_1"
    (run / "maze-a-v0" / "config.yml").write_text(yaml.dump({"alpha": 3.0, "policy_kwargs": {"net_arch": [8]}}), "utf-8")
    with np.load(run / "evaluations.npz") as arrays:
        content = dict(arrays)
    np.savez(run / "evaluations.npz", **content, measure_speed=RESULTS[1:, [1, 1, 2, 2]], seconds=[1.0, float("nan")])
    table = tmp_path_factory.mktemp("table") / "any_name.csv"
    write_table(read_records(results), table)
    assert_same(read_records(table), read_records(results))
    first = next(record for record in read_records(table) if str(record) == "fql maze-a-v0 run 1")
    assert first.config == {"alpha": 3.0, "policy_kwargs": {"net_arch": [8]}} and first.system["torch"] == "1.2.3"
    assert make_page(read_runs(table)) == make_page(read_runs(results))


def test_people_can_read_it(tmp_path: Path) -> None:
    write_table(records(), tmp_path / TABLE)
    rows = list(csv.DictReader((tmp_path / TABLE).open(encoding="utf-8")))
    assert list(rows[0])[:7] == ["setting", "algorithm", "environment", "run", "timesteps", "seconds", "results"]
    assert [row["successes"] for row in rows] == ["1 0 1", "0 0 0", "1 1 1", ""]
    assert rows[1]["results"] == "inf -220 5e-324" and [bool(row["config"]) for row in rows] == [True, False, False, False]


def cell(row: int, column: str, value: str) -> Callable[[list[dict[str, str]]], Any]:
    """A change of one cell."""
    return lambda rows: rows[row].update({column: value})


def without(column: str) -> Callable[[list[dict[str, str]]], Any]:
    """A column left out."""
    return lambda rows: [row.pop(column) for row in rows]


def renamed(column: str, name: str) -> Callable[[list[dict[str, str]]], Any]:
    """A column with another name."""
    return lambda rows: [row.update({name: row.pop(column)}) for row in rows]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("results"), "is not a table of evaluations: it has no column `results`"),
        (without("algorithm"), "no column `algorithm`"),
        (renamed("successes", "sucesses"), "unknown column `sucesses`; did you mean `successes`?"),
        (renamed("measure_score", "xyz"), "unknown column `xyz`; names of measures start with `measure_`"),
        (cell(1, "results", "1 x 3"), "line 3, `results`: could not convert string to float: 'x'"),
        (cell(1, "timesteps", "20.5"), "line 3, `timesteps`: invalid literal for int"),
        (cell(1, "timesteps", "20 25"), "line 3, `timesteps`: expected one number, found 2"),
        (cell(1, "successes", "0 2 1"), "line 3, `successes`: expected a number from 0 to 1 for each episode, found '2'"),
        (cell(2, "results", "1 2"), "line 2: all evaluations of this run must have the same number of `results`"),
        (cell(1, "successes", ""), "`successes` is empty in some rows of this run"),
        (cell(3, "results", ""), "line 5: sac Runner-v5 run 1 has no `results`"),
        (cell(2, "timesteps", "20"), r"`timesteps` is \[10, 20, 20\]; it must increase"),
        (cell(0, "run", "one"), "line 2: invalid literal for int"),
        (cell(0, "config", "{alpha: 1}"), "line 2: `config` is not valid JSON"),
        (cell(0, "system", "[1]"), r"line 2: `system` is \[1\]; expected a JSON object"),
        (lambda rows: rows.clear(), "has no evaluations"),
        (lambda rows: rows.extend(dict(row) for row in rows[:]), "`timesteps` is .*; it must increase"),
    ],
)
def test_what_is_damaged_is_named(tmp_path: Path, change: Callable[[list[dict[str, str]]], Any], message: str) -> None:
    file = tmp_path / TABLE
    write_table(records(), file)
    with file.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    columns = list(rows[0])
    change(rows)
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]) if rows else columns)
        writer.writeheader()
        writer.writerows(rows)
    with pytest.raises(ValueError, match=message) as caught:
        read_table(file)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04\xff\xfe", b"text", b"a,b\n1,2\n"])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "other.csv").write_bytes(content)
    with pytest.raises(ValueError, match=r"other\.csv is not a table of evaluations"):
        read_runs(tmp_path / "other.csv")


@pytest.mark.parametrize("share", [0.4, 0.97])
def test_a_table_that_was_cut_is_refused(tmp_path: Path, share: float) -> None:
    file = tmp_path / TABLE
    write_table(records()[:1], file)
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=TABLE):
        read_table(file)


def test_an_array_that_does_not_fit_is_named(results: Path) -> None:
    file = results / "fql" / "maze-a-v0_1" / "evaluations.npz"
    with np.load(file) as arrays:
        content = dict(arrays)
    np.savez(file, **{**content, "successes": content["successes"][:1]})
    with pytest.raises(ValueError, match=r"maze-a-v0_1.*`successes` has the shape \(1, 4\); expected \(2, 4\), as `results`"):
        read_runs(results)
