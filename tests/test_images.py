"""Which observations are images, and the warnings about others with the shape of images."""

import warnings
from typing import Any

import numpy as np
import pytest
from conformance.environments import AnySpaces
from gymnasium import spaces
from torch import nn

from sb3_flow import FQL

BYTES, SCALED = spaces.Box(0, 255, (3, 32, 32), np.uint8), spaces.Box(0, 1, (3, 32, 32), np.float32)
GREY = spaces.Box(0, 255, (32, 32), np.uint8)
TORQUE = spaces.Box(-1, 1, (1,))


def make(space: spaces.Space[Any], policy: str = "FlowPolicy", **policy_kwargs: Any) -> FQL:
    return FQL(policy, AnySpaces(space, TORQUE), policy_kwargs={"net_arch": [8], **policy_kwargs}, device="cpu")


def convolutions(model: FQL) -> int:
    return sum(isinstance(module, nn.Conv2d) for module in model.policy.modules())


@pytest.mark.parametrize("policy", ["FlowPolicy", "CnnPolicy"])
def test_bytes_and_scaled_floats_are_images(policy: str) -> None:
    assert convolutions(make(BYTES, policy)) > 0
    model = make(SCALED, policy, normalize_images=False)
    assert convolutions(model) > 0 and model.policy.normalizer.keys == []
    action, _ = model.predict(SCALED.sample(), deterministic=True)
    assert TORQUE.contains(action)


@pytest.mark.parametrize("space", [SCALED, GREY, spaces.Box(-1, 1, (3,))], ids=["scaled", "grey", "vector"])
def test_cnn_policy_needs_images(space: spaces.Box) -> None:
    with pytest.raises(ValueError, match=r"`CnnPolicy` needs images.*normalize_images"):
        make(space, "CnnPolicy")


@pytest.mark.parametrize("space", [SCALED, GREY, spaces.Dict({"camera": SCALED, "arm": TORQUE})], ids=str)
def test_what_looks_like_an_image_and_is_flattened_is_said(space: spaces.Space[Any]) -> None:
    with pytest.warns(UserWarning, match="look like images, and are flattened"):
        assert convolutions(make(space)) == 0


def test_other_boxes_are_flattened_without_a_word() -> None:
    for shape in ((5,), (4, 4), (3, 8, 8), (64, 3)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            make(spaces.Box(-1, 1, shape))


def test_scaled_images_with_channels_last_are_refused() -> None:
    with pytest.raises(ValueError, match="channels last; transpose"):
        make(spaces.Box(0, 1, (32, 32, 3), np.float32), normalize_images=False)


def test_floats_in_the_place_of_bytes_are_refused_where_they_are_small() -> None:
    model = make(BYTES)
    image = BYTES.sample()
    model.predict(image)
    model.predict(image.astype(np.float32))
    with pytest.raises(ValueError, match=r"floats in \[0, 1\].*Pass \(255"):
        model.predict(image.astype(np.float32) / 255)
