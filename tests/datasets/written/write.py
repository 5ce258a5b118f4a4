"""
Write the files of this folder with the packages that they are named after; each needs an environment of its own.

    PYTHONPATH=tests/datasets python tests/datasets/written/write.py PACKAGE

Their episodes are ``random_episodes(SEED)`` of ``dialects.py``. ``test_real_packages.py`` reads them.
"""

import importlib.metadata
import shutil
import sys
import zipfile
from pathlib import Path

import numpy as np
from dialects import in_groups, joined, random_episodes

SEED = 7
FOLDER = Path(__file__).parent
#: The version of each package that wrote its file.
VERSIONS = {"d3rlpy": "2.8.1", "robomimic": "0.3.0", "lerobot": "0.6.1"}  # and lerobot_0.4.4.zip by 0.4.4


def zipped(target: Path, root: Path, *files: Path) -> None:
    """Put files into the archive ``target.zip``."""
    with zipfile.ZipFile(target.with_suffix(".zip"), "w", zipfile.ZIP_LZMA) as archive:
        for file in files:
            archive.write(file, file.relative_to(root))


def d3rlpy() -> None:
    import d3rlpy as package

    columns = joined(random_episodes(SEED))
    arrays = [columns[name] for name in ("observations", "actions", "rewards", "terminations", "truncations")]
    dataset = package.dataset.MDPDataset(*(array.astype(np.float32) for array in arrays))
    with open(FOLDER / "d3rlpy.h5", "w+b") as file:
        dataset.dump(file)


def robomimic() -> None:
    """robomimic writes its files with simulators; here it splits one into parts, and reads it."""
    from robomimic.scripts.split_train_val import split_train_val_from_hdf5
    from robomimic.utils.dataset import SequenceDataset

    path = FOLDER / "robomimic.hdf5"
    demos = {}
    for number, episode in enumerate(random_episodes(SEED)):
        demos[f"data/demo_{number}"] = {
            "obs/eef": episode.observations[:-1],
            "next_obs/eef": episode.observations[1:],
            "actions": episode.actions,
            "rewards": episode.rewards,
            "dones": episode.terminations.astype(np.int64),
        }
    in_groups(path, demos)
    import h5py

    with h5py.File(path, "a") as file:
        for demo in file["data"].values():
            demo.attrs["num_samples"] = len(demo["actions"])
    np.random.seed(0)
    split_train_val_from_hdf5(str(path), val_ratio=0.3)
    keys = ("actions", "rewards", "dones")
    dataset = SequenceDataset(
        str(path), ("eef",), keys, load_next_obs=True, filter_by_attribute="train", seq_length=1, hdf5_cache_mode=None
    )
    rows = [dataset[i] for i in range(len(dataset))]
    read = {key: np.concatenate([row[key] for row in rows]) for key in keys}
    read |= {key: np.concatenate([row[key]["eef"] for row in rows]) for key in ("obs", "next_obs")}
    np.savez_compressed(FOLDER / "robomimic_as_read_by_robomimic.npz", **read)
    zipped(path, path.parent, path)
    path.unlink()


def lerobot() -> None:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    one = {"shape": (1,), "names": None}
    features = {
        "observation.state": {"dtype": "float32", "shape": (3,), "names": None},
        "observation.gripper": {"dtype": "float32", **one},
        "observation.images.front": {"dtype": "image", "shape": (8, 8, 3), "names": ["height", "width", "channels"]},
        "action": {"dtype": "float32", "shape": (2,), "names": None},
        "next.reward": {"dtype": "float32", **one},
        "next.done": {"dtype": "bool", **one},
    }
    folder = FOLDER / "lerobot"
    dataset = LeRobotDataset.create("demo/random", fps=10, features=features, root=folder, use_videos=False)
    number = 0
    for episode in random_episodes(SEED):
        for step in range(len(episode)):
            dataset.add_frame(
                {
                    "observation.state": episode.observations[step],
                    "observation.gripper": np.array([number], dtype=np.float32),
                    "observation.images.front": np.full((8, 8, 3), number, dtype=np.uint8),
                    "action": episode.actions[step],
                    "next.reward": episode.rewards[step : step + 1],
                    "next.done": episode.terminations[step : step + 1],
                    "task": "walk",
                }
            )
            number += 1
        dataset.save_episode()
    dataset.finalize()
    zipped(folder, folder, *sorted(path for path in folder.rglob("*.*") if path.is_file()))
    shutil.rmtree(folder)


if __name__ == "__main__":
    name = sys.argv[1]
    print(name, importlib.metadata.version(name))
    globals()[name]()
