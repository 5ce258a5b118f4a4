"""Processing of batches between a buffer and an update: device transfer, joining, normalization, augmentation."""

from typing import Any, TypeVar

import torch as th
from gymnasium import spaces
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.vec_env import VecNormalize

from sb3_flow.common.encoders import image_keys
from sb3_flow.common.type_aliases import Batch, TensorObs

#: Largest shift of an image by random crops, in pixels.
CROP_PAD = 3

Parts = TypeVar("Parts", bound=tuple[Any, ...])


def offline_count(batch_size: int, n_offline: int, n_online: int, balanced: bool, generator: th.Generator) -> int:
    """
    Number of transitions of a batch that come from the dataset.

    :param batch_size: Transitions in the batch
    :param n_offline: Transitions in the dataset
    :param n_online: Transitions in the replay buffer
    :param balanced: Whether half of the batch comes from each source; if not, all transitions are equally likely.
    :param generator: Source of randomness
    :return: The number, from 0 to ``batch_size``
    """
    if n_offline == 0 or n_online == 0:
        return batch_size if n_online == 0 else 0
    if balanced:
        return batch_size // 2
    rows = th.randint(n_offline + n_online, (batch_size,), generator=generator, device=generator.device)
    return int((rows < n_offline).sum())


def normalize(batch: Batch, env: VecNormalize | None) -> Batch:
    """
    Apply the statistics of a ``VecNormalize`` to the observations of a batch. The rewards were normalized when the batch was
    drawn, each separately, before n-step returns were summed.

    :param batch: A batch with raw observations
    :param env: The wrapper, or None for no normalization
    :return: The batch with normalized observations
    """
    if env is None:
        return batch

    def observations(obs: TensorObs) -> TensorObs:
        if isinstance(obs, dict):
            arrays: Any = env.normalize_obs({key: part.cpu().numpy() for key, part in obs.items()})
            return {key: th.as_tensor(part, device=obs[key].device) for key, part in arrays.items()}
        return th.as_tensor(env.normalize_obs(obs.cpu().numpy()), device=obs.device)

    normalized = observations(batch.observations)
    if env.norm_obs:
        require_not_clipped(normalized, env)
    return batch._replace(observations=normalized, next_observations=observations(batch.next_observations))


#: A batch is refused if a larger share of its numbers is at the clipping limit of ``VecNormalize``.
MOST = 0.9


def require_not_clipped(observations: TensorObs, env: VecNormalize) -> None:
    """
    :param observations: Normalized observations
    :param env: The wrapper that normalized them
    :raises ValueError: If nearly all of them are clipped: networks would see a constant.
    """
    for part in observations.values() if isinstance(observations, dict) else [observations]:
        if part.is_floating_point() and (part.abs() >= env.clip_obs).float().mean().item() > MOST:
            raise ValueError(
                f"`VecNormalize` clips nearly all observations of a batch to {env.clip_obs}: its statistics are not those of "
                "the data. Load those of training by `VecNormalize.load(path, venv)`, or give the model a fresh wrapper."
            )


def concatenate(first: Batch, second: Batch) -> Batch:
    """Concatenate two batches."""

    def join(a: Any, b: Any) -> Any:
        if a is None:
            return None
        return {key: th.cat([a[key], b[key]]) for key in a} if isinstance(a, dict) else th.cat([a, b])

    return Batch(*(join(a, b) for a, b in zip(first, second, strict=True)))


def to_device(batch: Parts, device: th.device) -> Parts:
    """Move a batch, or another named tuple of tensors and dictionaries of tensors, to a device."""

    def move(part: Any) -> Any:
        # Without waiting for the device: CUDA has read ordinary memory before the call returns.
        return {key: move(v) for key, v in part.items()} if isinstance(part, dict) else part.to(device, non_blocking=True)

    return type(batch)(*map(move, batch))


def shift_images(
    batch: Batch, space: spaces.Space[Any], offsets: th.Tensor, next_offsets: th.Tensor, pad: int = CROP_PAD
) -> Batch:
    """
    Shift the images of a batch by random crops. All frames of a stack have the same shift.

    :param batch: A batch
    :param space: Observation space
    :param offsets: Offsets of ``random_crop`` for ``observations``
    :param next_offsets: Offsets for ``next_observations``
    :param pad: Number of pixels by which the edge is repeated
    :return: The batch with shifted images
    """
    images = image_keys(space)

    def crop(observations: TensorObs, offsets: th.Tensor) -> TensorObs:
        if isinstance(observations, th.Tensor):
            return random_crop(observations, offsets, pad)
        return {key: random_crop(part, offsets, pad) if key in images else part for key, part in observations.items()}

    return batch._replace(
        observations=crop(batch.observations, offsets),
        next_observations=crop(batch.next_observations, next_offsets),
    )


def random_crop(images: th.Tensor, offsets: th.Tensor, pad: int = CROP_PAD) -> th.Tensor:
    """
    Shift images by cropping copies with a repeated edge (random-crop augmentation).

    :param images: ``(B, channels, height, width)``; with histories of ``h`` observations, ``(B * h, ...)``
    :param offsets: Top left corner of each crop, ``(B, 2)`` of int64 in [0, 2 pad]; ``pad`` means no shift. All
        images of a history have the same shift.
    :param pad: Number of pixels by which the edge is repeated
    :return: As ``images``
    """
    height, width = images.shape[-2:]
    offsets = offsets.repeat_interleave(len(images) // len(offsets), dim=0)
    # The source row of each output row; clamping to the image is the same as repeating its edge.
    rows = (offsets[:, :1] - pad + th.arange(height, device=images.device)).clamp(0, height - 1)
    columns = (offsets[:, 1:] - pad + th.arange(width, device=images.device)).clamp(0, width - 1)
    batch = th.arange(len(images), device=images.device)
    return images.permute(0, 2, 3, 1)[batch[:, None, None], rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def as_replay_samples(batch: Batch) -> ReplayBufferSamples:
    """
    Convert a batch to the samples of Stable-Baselines3's replay buffers.

    :param batch: A batch of single actions
    :return: The samples, with rewards, dones and discounts of shape ``(B, 1)``
    """
    return ReplayBufferSamples(
        batch.observations,  # type: ignore[arg-type]
        batch.actions,
        batch.next_observations,  # type: ignore[arg-type]
        (1.0 - batch.masks)[:, None],
        batch.rewards[:, None],
        batch.discounts[:, None],
    )
