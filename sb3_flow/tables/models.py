"""Trained models of a report in one archive, in the folders from which ``sb3-flow enjoy`` loads them."""

from collections.abc import Iterable
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

from sb3_flow.common.files import atomic_write
from sb3_flow.tables.records import RunRecord, read_parameters

#: A page in the archive that lists the models and the commands that load them.
LIST = "MODELS.md"
#: Files beside a model that are not needed to load it, and contain paths of the machine that trained it.
OMITTED = ("command.txt",)


def archive_file(file: Path) -> Path:
    """
    The file of an archive: ``.zip`` is added to a name without suffix, as Stable-Baselines3's ``save`` does.

    :param file: The given name
    :return: The file
    :raises ValueError: If it is a folder.
    """
    named = file if file.suffix else file.with_suffix(".zip")
    for path in (file, named):
        if path.is_dir():
            raise ValueError(f"--models {path} is a folder; pass a file, such as {path / 'models.zip'}.")
    return named


def write_models(records: Iterable[RunRecord], file: Path) -> int:
    """
    Write the final models of runs to a zip archive: the run with the lowest number of each algorithm, task and setting.

    :param records: The runs of the page, read from their folders. Other samplers of a run, such as ``fql-bc_flow``, have no
        model of their own and are left out.
    :param file: The archive. An existing one is replaced.
    :return: Number of models
    :raises ValueError: If no run has a model, for instance because the records are from a table.
    """
    chosen: dict[tuple[str, str, str], tuple[RunRecord, Path]] = {}
    for record in sorted(records, key=lambda record: record.run_id):
        if record.folder is not None and (record.folder / f"{record.env}.zip").is_file():
            chosen.setdefault((record.setting, record.algorithm, record.env), (record, record.folder))
    if not chosen:
        raise ValueError("There is no model to archive. Give the folder of the runs; a table has no models.")
    with atomic_write(file) as stream, ZipFile(stream, "w", ZIP_DEFLATED) as archive:
        archive.writestr(LIST, _list(chosen.values()))
        for record, folder in chosen.values():
            inside = Path(record.setting, record.algorithm, folder.name)
            parameters = sorted(path for path in (folder / record.env).glob("*") if path.name not in OMITTED)
            for path in [folder / f"{record.env}.zip", folder / "evaluations.npz", *parameters]:
                archive.write(path, inside / path.relative_to(folder))
    return len(chosen)


def _list(models: Iterable[tuple[RunRecord, Path]]) -> str:
    lines = ["# Models", "", "The final model of one run of each algorithm and task. From the folder of this page:", ""]
    for record, folder in models:
        command = f"sb3-flow enjoy --algo {record.algorithm} --env {record.env} --exp-id {record.run_id}"
        options = ["-f", Path(".", record.setting).as_posix()]
        if packages := read_parameters(folder, "args.yml").get("gym_packages"):
            options += ["--gym-packages", *packages]
        lines.append(f"    {command} {' '.join(options)}")
    return "\n".join([*lines, ""])
