"""Datasets: readers of common formats, a registry of names, and collection on this machine."""

from typing import Any

from sb3_flow.common.data.columns import DatasetError
from sb3_flow.common.data.dataset import OfflineDataset
from sb3_flow.common.data.sources import read_dataset, register_reader
from sb3_flow.datasets.arrays import unpack
from sb3_flow.datasets.collect import collect, collect_multi_robot, collect_with_policy
from sb3_flow.datasets.converted import convert
from sb3_flow.datasets.from_arrays import read_array_file
from sb3_flow.datasets.from_collected import read_collected
from sb3_flow.datasets.from_frame import read_frame
from sb3_flow.datasets.from_hdf5 import read_hdf5
from sb3_flow.datasets.from_lerobot import read_lerobot
from sb3_flow.datasets.from_minari import read_minari, recover_environment
from sb3_flow.datasets.from_multi_robot import read_multi_robot
from sb3_flow.datasets.from_ogbench import read_ogbench
from sb3_flow.datasets.from_rlds import read_rlds
from sb3_flow.datasets.from_zarr import read_zarr
from sb3_flow.datasets.names import read_misspelled
from sb3_flow.datasets.registry import RECIPES, Recipe, local_datasets

# Readers of LeRobot and zarr recognize their folders by name, so they come before readers of other folders.
for _reader in (
    read_ogbench,
    read_collected,
    read_multi_robot,
    read_minari,
    read_zarr,
    read_lerobot,
    read_frame,
    read_rlds,
    read_array_file,
    read_hdf5,
):
    register_reader(_reader)
register_reader(read_misspelled, last=True)


def load_dataset(source: Any, env_id: str | None = None) -> OfflineDataset:
    """
    Read any source that ``dataset=`` accepts, except for replay buffers.

    :param source: A name (``"cube-single-play-v0"``, ``"pusht"``, ``"minari:D4RL/door/human-v2"``), the path of an ``.npz`` or
        ``.hdf5`` file, of a folder of ``.npy`` files (memory-mapped), of a ``.zarr`` file of Diffusion Policy or a folder of
        LeRobot, a ``minari.MinariDataset``, a dictionary of arrays, or an ``OfflineDataset``
    :param env_id: Id of the environment of the data. OGBench data without rewards is relabeled with the rewards of this
        environment if it is a single-task environment.
    :return: The dataset
    :raises DatasetError: If no reader supports the source, or the data is damaged.
    :raises ImportError: If the source needs a package that is not installed.
    """
    return read_dataset(source, env_id)


__all__ = [
    "RECIPES",
    "DatasetError",
    "OfflineDataset",
    "Recipe",
    "collect",
    "collect_multi_robot",
    "collect_with_policy",
    "convert",
    "load_dataset",
    "local_datasets",
    "read_dataset",
    "recover_environment",
    "unpack",
]
