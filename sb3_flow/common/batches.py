"""Imports of version 0.1. Use ``sb3_flow.common.data``."""

from sb3_flow.common.data.batches import (
    as_replay_samples,
    concatenate,
    normalize,
    offline_count,
    random_crop,
    shift_images,
    to_device,
)

__all__ = [
    "as_replay_samples",
    "concatenate",
    "normalize",
    "offline_count",
    "random_crop",
    "shift_images",
    "to_device",
]
