"""A fixture in which reading a pickle is an error."""

import importlib
import pickle
from typing import Any

import cloudpickle
import pytest
import torch as th


@pytest.fixture
def no_pickles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever unpickles raises, except for PyTorch's reader of tensors."""
    importlib.import_module("torch._dynamo")  # optimizers import it, and it extends `pickle.Unpickler`

    def refuse(*args: Any, **kwargs: Any) -> Any:
        pytest.fail("a pickle was read")

    load = th.load

    def load_tensors(*args: Any, **kwargs: Any) -> Any:
        if kwargs.get("weights_only") is not True:
            pytest.fail("a pickle was read")
        return load(*args, **kwargs)

    for module in (pickle, cloudpickle):
        for name in ("load", "loads"):
            monkeypatch.setattr(module, name, refuse)
    monkeypatch.setattr(pickle, "Unpickler", refuse)
    monkeypatch.setattr(th, "load", load_tensors)
