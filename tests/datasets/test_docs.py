"""docs/datasets.md has the table of fields that the readers use. Print it by ``python tests/datasets/test_docs.py``."""

from pathlib import Path

from sb3_flow.common.data.fields import DIALECTS
from sb3_flow.common.data.transforms import REWARDS, TRANSFORMS

PAGE = Path(__file__).parents[2] / "docs" / "datasets.md"
START, END = "<!-- fields: python tests/datasets/test_docs.py -->\n", "<!-- end of fields -->\n"


def table() -> str:
    """A row for each field of each dialect."""
    lines = ["| dialect | written by | field | meaning |", "| --- | --- | --- | --- |"]
    for name, dialect in DIALECTS.items():
        by = f"{dialect.package} {dialect.version}".strip() or "-"
        lines += [f"| {name} | {by} | `{field}` | {meaning.value} |" for field, meaning in dialect.fields.items()]
    return "\n".join(lines) + "\n"


def test_the_table_is_that_of_the_code() -> None:
    text = PAGE.read_text("utf-8")
    assert text[text.index(START) + len(START) : text.index(END)] == table()


def test_all_changes_are_described() -> None:
    text = PAGE.read_text("utf-8")
    for name in ("weight", *TRANSFORMS):
        assert f"| `{name}` |" in text
    for name in REWARDS:
        assert f'"{name}"' in text


if __name__ == "__main__":
    print(table(), end="")
