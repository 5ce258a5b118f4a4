"""Random edits of valid inputs, as ``benchmarks/fuzz.py`` makes them under the control of a fuzzer."""

import random
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import fuzz_targets

INPUTS = 40
NEEDED = {"hdf5": "h5py", "zarr": "zarr", "table": "pyarrow", "minari": "minari", "configuration": "yaml"}


class Choices:
    """Random choices in the place of those of Atheris."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def ConsumeIntInRange(self, low: int, high: int) -> int:
        return self.random.randint(low, high)

    def ConsumeInt(self, size: int) -> int:
        return self.random.randrange(256**size)

    def ConsumeBytes(self, size: int) -> bytes:
        return self.random.randbytes(size)

    def ConsumeUnicodeNoSurrogates(self, most: int) -> str:
        return "".join(chr(self.random.randrange(32, 500)) for _ in range(self.random.randint(0, most)))


@pytest.mark.slow
@pytest.mark.parametrize("name", fuzz_targets.TARGETS)
def test_each_input_is_accepted_or_refused_by_an_error_of_this_package(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(NEEDED.get(name, "numpy"))
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    found: list[tuple[int, str | None, Any]] = []
    for seed in range(INPUTS):
        folder = tmp_path / str(seed)
        folder.mkdir()
        monkeypatch.chdir(folder)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                fuzz_targets.TARGETS[name](Choices(seed), folder)
                found.append((seed, None, "accepted"))
            except Exception as error:
                found.append((seed, fuzz_targets.unclear(error), error))
    assert not [case for case in found if case[1] is not None]
    assert len({case[2] == "accepted" for case in found}) == 2 or name == "names"  # both kinds
