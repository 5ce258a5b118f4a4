"""What the tests of tables share."""

from pathlib import Path

import pytest
from written_runs import write_run


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Two algorithms on two mazes and a task with returns; the second algorithm on one maze only."""
    for run_id in (1, 2, 3):
        write_run(tmp_path, "fql", "maze-a-v0", run_id, [1, 1, 1, 0], [-5.0] * 4)
        write_run(tmp_path, "fql", "maze-b-v0", run_id, [1, 0, 0, 0], [-7.0] * 4)
        write_run(tmp_path, "fql", "Runner-v5", run_id, None, [1000.0 * run_id] * 4)
        write_run(tmp_path, "td3", "maze-a-v0", run_id, [0, 0, 0, 0], [-9.0] * 4)
    return tmp_path
