"""The shipped configurations, by file and by environment id: what a run of that environment is given."""

from pathlib import Path
from typing import Any

import yaml

from sb3_flow.zoo.entries import resolve_entries

FOLDER = Path(__file__).parents[1] / "zoo_configs"
#: As they are written, with patterns for names.
WRITTEN: dict[str, dict[str, Any]] = {
    file.stem: yaml.safe_load(file.read_text("utf-8")) for file in sorted(FOLDER.glob("*.yml"))
}
#: What `*` in a name stands for: OGBench's tasks, and no task, which is the default one.
TASKS = ("", *(f"-task{number}" for number in range(1, 6)))


def names_of(pattern: str) -> list[str]:
    """The environments of an entry, or ``["default"]``."""
    return [pattern.replace("*", task) for task in TASKS] if "*" in pattern else [pattern]


#: Filled in, for each environment.
FILES: dict[str, dict[str, Any]] = {
    file: {name: resolve_entries(entries, name)[name] for pattern in entries for name in names_of(pattern)}
    for file, entries in WRITTEN.items()
}
