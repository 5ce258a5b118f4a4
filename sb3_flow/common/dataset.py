"""Imports of version 0.1. Use ``sb3_flow.common.data``."""

from sb3_flow.common.data.columns import DatasetError, Observations, blocks
from sb3_flow.common.data.dataset import OfflineDataset
from sb3_flow.common.data.sources import read_dataset, register_reader

__all__ = ["DatasetError", "Observations", "OfflineDataset", "blocks", "read_dataset", "register_reader"]
