"""
Values as plain data: JSON and arrays, so that reading a file does not run code that the file contains.

Numbers, strings, lists and dictionaries are written as in JSON. Other values are objects with one key that starts with a
colon, such as ``{":tuple": [1, 2]}``. Classes and objects are written by name. Only the classes that this file lists are
accepted.
"""

from __future__ import annotations

import base64
import importlib
import math
import pathlib
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import BaseBuffer
from stable_baselines3.common.noise import NormalActionNoise, OrnsteinUhlenbeckActionNoise, VectorizedActionNoise
from stable_baselines3.common.type_aliases import TrainFreq, TrainFrequencyUnit
from stable_baselines3.common.utils import ConstantSchedule, FloatSchedule, LinearSchedule
from torch import nn

from sb3_flow.common.checkpoints.plain_spaces import space_from_parts, space_to_parts
from sb3_flow.common.schedules import InTurn, LinearToZero, WarmUpCosine

#: Packages whose classes are accepted, and the required base classes.
PACKAGES = ("sb3_contrib", "sb3_flow", "stable_baselines3", "torch.nn", "torch.optim")
KINDS = (nn.Module, th.optim.Optimizer, BaseBuffer)
#: Classes whose objects are written as their attributes.
OBJECTS: dict[str, type] = {
    cls.__name__: cls
    for cls in (
        *(ConstantSchedule, FloatSchedule, LinearSchedule, LinearToZero, WarmUpCosine, InTurn),
        *(NormalActionNoise, OrnsteinUhlenbeckActionNoise, VectorizedActionNoise),
    )
}
#: Accepted factories of a ``defaultdict``.
FACTORIES: dict[str, Callable[[], Any]] = {cls.__name__: cls for cls in (int, float, list, dict, set)}
#: Errors while reading data that ``to_plain`` did not write.
MALFORMED = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, ImportError, AssertionError, RuntimeError)
#: First character of the key of a JSON object that represents another value.
MARK = ":"


class NotPlain(ValueError):
    """A value cannot be written as plain data. The message is its place and its type."""


def to_plain(value: Any, known: Iterable[type] = (), arrays: list[np.ndarray] | None = None, name: str = "value") -> Any:
    """
    Convert a value to plain data.

    :param value: The value
    :param known: Further classes that may be written by name
    :param arrays: Arrays are added to this list, and JSON has their indices; None: they are in the JSON, as base64
    :param name: Name of the value in messages
    :return: Data for ``json.dumps``, without NaN
    :raises NotPlain: If the value is, or contains, an object of another type.
    """
    return _Writer(known, arrays).write(value, name)


def from_plain(data: Any, known: Iterable[type] = (), arrays: list[np.ndarray] | None = None) -> Any:
    """
    Convert plain data back to the value. No code of the file is run.

    :param data: As returned by ``to_plain``
    :param known: As for ``to_plain``
    :param arrays: As for ``to_plain``
    :return: The value
    :raises ValueError: If ``to_plain`` did not write the data.
    """
    try:
        return _Reader(known, arrays).read(data)
    except MALFORMED as error:
        raise ValueError(f"it has a malformed value ({error})") from error


def class_name(cls: type) -> str:
    """The name of a class in files, such as ``torch.nn.modules.activation.ReLU``."""
    return f"{cls.__module__}.{cls.__qualname__}"


def class_named(name: str, known: Iterable[type] = ()) -> type:
    """
    Find a class.

    :param name: As returned by ``class_name``
    :param known: Further classes that are accepted
    :return: The class: a module, an optimizer or a buffer of PyTorch, Stable-Baselines3 or this package
    :raises ValueError: If there is no such class, or it is not accepted.
    """
    for cls in known:
        if class_name(cls) == name:
            return cls
    module, _, attribute = name.rpartition(".")
    if any(module == package or module.startswith(f"{package}.") for package in PACKAGES):
        found: Any = getattr(importlib.import_module(module), attribute, None)
        if _has_name(found, known) and class_name(found) == name:
            return found  # type: ignore[no-any-return]
    raise ValueError(f"the class {name} is not accepted")


def _has_name(cls: Any, known: Iterable[type]) -> bool:
    if not isinstance(cls, type):
        return False
    ours = issubclass(cls, KINDS) and cls.__module__.startswith(tuple(f"{package}." for package in PACKAGES))
    return cls in known or (ours and "." not in cls.__qualname__)


class _Writer:
    def __init__(self, known: Iterable[type], arrays: list[np.ndarray] | None) -> None:
        self.known, self.arrays = list(known), arrays

    def write(self, value: Any, place: str) -> Any:
        for write in (self.scalar, self.collection, self.numeric, self.named):
            form = write(value, place)
            if form is not NotImplemented:
                return form
        raise NotPlain(f"{place} ({describe(value)})")

    def scalar(self, value: Any, place: str) -> Any:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, np.generic):  # np.float64 is a float, too
            return NotImplemented
        if isinstance(value, str):
            return str.__str__(value)
        if isinstance(value, int):
            return int(value)
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else {":float": str(float(value))}
        if isinstance(value, complex):
            return {":complex": [self.write(value.real, place), self.write(value.imag, place)]}
        if isinstance(value, bytes):
            return {":bytes": _base64(value)}
        if isinstance(value, pathlib.PurePath):
            return {":path": str(value)}
        return NotImplemented

    def collection(self, value: Any, place: str) -> Any:
        kind = type(value)
        if kind in (dict, OrderedDict):
            if all(type(key) is str and not key.startswith(MARK) for key in value):
                return {key: self.write(item, f"{place}[{key!r}]") for key, item in value.items()}
            return {":dict": self.pairs(value, place)}
        if kind is Counter:
            return {":Counter": self.pairs(value, place)}
        if kind is defaultdict and value.default_factory in FACTORIES.values():
            return {":defaultdict": [value.default_factory.__name__, self.pairs(value, place)]}
        if kind not in (list, tuple, set, frozenset, deque):
            return NotImplemented
        items = [self.write(item, f"{place}[{i}]") for i, item in enumerate(value)]
        if kind is list:
            return items
        return {":deque": [items, value.maxlen]} if kind is deque else {f"{MARK}{kind.__name__}": items}

    def pairs(self, value: dict[Any, Any], place: str) -> list[list[Any]]:
        return [[self.write(key, place), self.write(item, f"{place}[{key!r}]")] for key, item in value.items()]

    def numeric(self, value: Any, place: str) -> Any:
        if isinstance(value, np.generic) and type(value) is not np.void and not value.dtype.hasobject:
            return {":number": self.array(np.asarray(value))}
        if type(value) is np.ndarray and not value.dtype.hasobject and value.dtype.names is None:
            return {":array": self.array(value)}
        if (
            type(value) is th.Tensor
            and str(value.dtype).removeprefix("torch.") in np.sctypeDict
            and value.layout is th.strided
        ):
            return {":tensor": self.array(value.detach().cpu().numpy())}
        if isinstance(value, np.dtype) and not value.hasobject and value.names is None:
            return {":dtype": value.str}
        if isinstance(value, type) and issubclass(value, np.generic):
            return {":numpy": value.__name__}
        if isinstance(value, th.dtype):
            return {":torch": str(value).removeprefix("torch.")}
        return NotImplemented

    def array(self, array: np.ndarray) -> Any:
        if self.arrays is not None:
            self.arrays.append(array)
            return len(self.arrays) - 1
        return [array.dtype.str, list(array.shape), _base64(array.tobytes())]

    def named(self, value: Any, place: str) -> Any:
        kind = type(value)
        if _has_name(value, self.known):
            return {":class": class_name(value)}
        if kind is TrainFreq:
            return {":TrainFreq": [value.frequency, value.unit.value]}
        if kind is TrainFrequencyUnit:
            return {":TrainFrequencyUnit": value.value}
        if class_name(kind) == "rl_zoo3.utils.SimpleLinearSchedule":  # the same function, without RL Zoo
            value, kind = LinearToZero(value.initial_value), LinearToZero
        if kind in OBJECTS.values():
            state = {name: self.write(item, f"{place}.{name}") for name, item in vars(value).items()}
            return {":object": [kind.__name__, state]}
        if isinstance(value, spaces.Space):
            parts = space_to_parts(value)
            return NotImplemented if parts is None else {":space": [self.write(part, place) for part in parts]}
        return NotImplemented


class _Reader:
    def __init__(self, known: Iterable[type], arrays: list[np.ndarray] | None) -> None:
        self.known, self.arrays = list(known), arrays

    def read(self, data: Any) -> Any:
        if isinstance(data, list):
            return [self.read(item) for item in data]
        if not isinstance(data, dict):
            return data
        marks = [key for key in data if key.startswith(MARK)]
        if not marks:
            return {key: self.read(item) for key, item in data.items()}
        if len(data) > 1 or marks[0] not in self.forms:
            raise ValueError(f"unknown form {marks[0]!r}")
        return self.forms[marks[0]](self, data[marks[0]])

    def pairs(self, content: Any) -> dict[Any, Any]:
        return {self.read(key): self.read(item) for key, item in content}

    def array(self, content: Any) -> np.ndarray:
        if isinstance(content, int) and not isinstance(content, bool):
            if self.arrays is None or not 0 <= content < len(self.arrays):
                raise ValueError(f"there is no array {content}")
            return self.arrays[content]
        dtype, shape, raw = content
        return np.frombuffer(base64.b64decode(raw, validate=True), _dtype(dtype)).reshape(shape).copy()

    def named_object(self, content: Any) -> Any:
        name, state = content
        made: Any = object.__new__(OBJECTS[name])
        vars(made).update({key: self.read(item) for key, item in state.items()})
        return made

    def torch_dtype(self, content: Any) -> th.dtype:
        dtype = getattr(th, content)
        if not isinstance(dtype, th.dtype):
            raise ValueError(f"torch.{content} is not a type of tensors")
        return dtype

    def numpy_type(self, content: Any) -> Any:
        cls = getattr(np, content)
        if not (isinstance(cls, type) and issubclass(cls, np.generic)):
            raise ValueError(f"numpy.{content} is not a type of numbers")
        return cls

    forms: dict[str, Callable[[_Reader, Any], Any]] = {  # noqa: RUF012
        ":float": lambda self, content: {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}[content],
        ":complex": lambda self, content: complex(*self.read(content)),
        ":bytes": lambda self, content: base64.b64decode(content, validate=True),
        ":path": lambda self, content: pathlib.Path(content),
        ":dict": pairs,
        ":Counter": lambda self, content: Counter(self.pairs(content)),
        ":defaultdict": lambda self, content: defaultdict(FACTORIES[content[0]], self.pairs(content[1])),
        ":deque": lambda self, content: deque(self.read(content[0]), maxlen=content[1]),
        ":tuple": lambda self, content: tuple(self.read(content)),
        ":set": lambda self, content: set(self.read(content)),
        ":frozenset": lambda self, content: frozenset(self.read(content)),
        ":number": lambda self, content: self.array(content)[()],
        ":array": array,
        ":tensor": lambda self, content: th.from_numpy(self.array(content)),
        ":dtype": lambda self, content: _dtype(content),
        ":numpy": numpy_type,
        ":torch": torch_dtype,
        ":class": lambda self, content: class_named(content, self.known),
        ":TrainFreq": lambda self, content: TrainFreq(int(content[0]), TrainFrequencyUnit(content[1])),
        ":TrainFrequencyUnit": lambda self, content: TrainFrequencyUnit(content),
        ":object": named_object,
        ":space": lambda self, content: space_from_parts(*self.read(content)),
    }


def describe(value: Any) -> str:
    """Description of a value for messages."""
    if isinstance(value, type):
        return f"the class {class_name(value)}"
    name = getattr(value, "__qualname__", None)
    return f"the function {value.__module__}.{name}" if name else f"an object of {class_name(type(value))}"


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _dtype(text: Any) -> np.dtype[Any]:
    dtype = np.dtype(str(text))
    if dtype.hasobject:
        raise ValueError(f"arrays of {dtype} are not accepted")
    return dtype
