"""
A stand-in for a GPU, which computes on the CPU and records what would make a GPU wait, or fail.

It is a device in the slot that PyTorch has for other devices (PrivateUse1), written in Python: a tensor of it wraps one of the
CPU, and each operator runs on the wrapped tensors. An operator is recorded if it

- **waits**: it needs values on the host (``.item()``, ``if tensor:``, ``.cpu()``), or the shape of its result depends on
  values (``nonzero``, boolean masks);
- **copies** values from the host (``th.tensor([...], device=...)``, ``tensor.to(device)``);
- **mixes** tensors of the device with tensors of the CPU. As in PyTorch, scalars of the CPU are allowed.

A process has one such slot, which cannot be emptied, and PyTorch counts devices at the first gradient of a process. Therefore
all of this runs in a process of its own.
"""

import contextlib
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.utils import configure_logger
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

import sb3_flow
from conformance.cases import CASES
from conformance.environments import AnySpaces, collect
from sb3_flow.common.data.batches import to_device
from sb3_flow.common.execution import tensors

#: Name of the device.
DEVICE = "standin"
PACKAGE = Path(sb3_flow.__file__).parent
aten = th.ops.aten
#: Operators that create tensors: they have no tensor from which PyTorch could tell the device.
CREATING = (
    *("empty.memory_format", "empty_strided", "zeros", "ones", "full", "scalar_tensor", "eye", "eye.m", "linspace"),
    *("arange", "arange.start", "arange.start_step", "triu_indices", "randperm", "randperm.generator"),
    *("rand", "rand.generator", "randn", "randn.generator", "randint", "randint.generator", "randint.low"),
    "randint.low_generator",
)
#: Operators with indices, which wait if one of these is a boolean mask.
INDEXING = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default)
#: Decompositions wait, because they check for errors, although PyTorch does not tag them.
CHECKING = (aten._linalg_check_errors.default, aten._linalg_eigh.default, aten._linalg_svd.default, aten.linalg_eig.default)
#: Tags of operators that need values on the host.
WAITING = {th.Tag.data_dependent_output, th.Tag.dynamic_output_shape}


class Finding(NamedTuple):
    """
    An operator that a GPU would trip over.

    :param kind: ``"waits"``, ``"copies"`` or ``"mixes"``
    :param operator: Its name
    :param function: The function of this package that called it
    :param line: File and line
    """

    kind: str
    operator: str
    function: str
    line: str


#: All findings since the last block of ``recorded`` began.
FINDINGS: list[Finding] = []


@contextlib.contextmanager
def recorded() -> Iterator[list[Finding]]:
    """Context manager that gives the findings of its block, after its end."""
    FINDINGS.clear()
    findings: list[Finding] = []
    yield findings
    findings += FINDINGS


class DeviceTensor(th.Tensor):
    """
    A tensor of the device.

    :param host: The tensor of the CPU that has its values
    """

    host: th.Tensor
    __torch_function__ = th._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, host: th.Tensor) -> "DeviceTensor":
        layout = {"strides": host.stride(), "storage_offset": host.storage_offset(), "dtype": host.dtype}
        tensor: DeviceTensor = th.Tensor._make_wrapper_subclass(cls, host.shape, device=f"{DEVICE}:0", **layout)
        tensor.host = host
        return tensor

    def tolist(self) -> Any:
        return self.cpu().tolist()  # PyTorch refuses it for classes of tensors

    @classmethod
    def __torch_dispatch__(cls, operator: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        if kind := kind_of(operator, args, kwargs):
            FINDINGS.append(Finding(kind, str(operator), *caller()))
        leaves = kwargs.get("device") is not None and kwargs["device"].type != DEVICE
        wrappers: dict[int, DeviceTensor] = {}

        def unwrap(value: Any) -> Any:
            if isinstance(value, DeviceTensor):
                wrappers[id(value.host)] = value
                return value.host
            return th.device("cpu") if isinstance(value, th.device) and value.type == DEVICE else value

        def wrap(value: Any) -> Any:
            if not isinstance(value, th.Tensor) or leaves:
                return value
            # An operator that works in place returns its argument.
            return wrappers[id(value)] if id(value) in wrappers else DeviceTensor(value)

        return tree_map(wrap, operator(*tree_map(unwrap, args), **tree_map(unwrap, kwargs)))


def kind_of(operator: Any, args: Any, kwargs: dict[str, Any]) -> str | None:
    """What a call of an operator does that a GPU would trip over; None: nothing."""
    given = [value for value in tree_leaves((args, kwargs)) if isinstance(value, th.Tensor)]
    if operator is aten.copy_.default:
        target, source = given
        if not isinstance(target, DeviceTensor):
            return "waits"
        return None if isinstance(source, DeviceTensor) else "copies"
    if operator is aten._to_copy.default:
        device = kwargs.get("device")
        return "waits" if device is not None and device.type == "cpu" else None
    if any(value.dim() > 0 and not isinstance(value, DeviceTensor) for value in given):
        return "mixes"
    if operator in INDEXING:
        return "waits" if any(index is not None and index.dtype in (th.bool, th.uint8) for index in args[1]) else None
    return "waits" if operator in CHECKING or WAITING & set(operator.tags) else None


def caller() -> tuple[str, str]:
    """The function of this package that is running, and its line."""
    frames = [frame for frame in traceback.extract_stack() if PACKAGE in Path(frame.filename).parents]
    if not frames:
        return "", "not in a function of this package: in a gradient, or in a test"
    return frames[-1].name, f"{Path(frames[-1].filename).relative_to(PACKAGE.parent)}:{frames[-1].lineno}"


class Generator(th._C.Generator):
    """A generator of any device, which is one of the CPU."""

    def __new__(cls, device: Any = "cpu") -> "Generator":
        return super().__new__(cls)


#: The operators of the device. PyTorch forgets them with this object.
LIBRARY = th.library.Library("aten", "IMPL")


def register() -> None:
    """Register the device in this process."""
    th.set_num_threads(1)
    _setup_privateuseone_for_python_backend(DEVICE)
    th.__future__.set_swap_module_params_on_conversion(True)  # so that an optimizer knows the parameters after a move
    th.Generator = Generator  # type: ignore[misc,assignment]

    def creating(operator: Any) -> Callable[..., th.Tensor]:
        return lambda *args, **kwargs: DeviceTensor(operator(*args, **{**kwargs, "device": th.device("cpu")}))

    def copy_from(source: th.Tensor, target: DeviceTensor, non_blocking: bool = False) -> th.Tensor:
        FINDINGS.append(Finding("copies", "aten._copy_from.default", *caller()))
        target.host.copy_(source)
        return target

    for name in CREATING:
        operator, _, overload = name.partition(".")
        LIBRARY.impl(name, creating(getattr(getattr(aten, operator), overload or "default")), "PrivateUse1")
    LIBRARY.impl("_efficientzerotensor", creating(aten.zeros.default), "PrivateUse1")
    LIBRARY.impl("_copy_from", copy_from, "PrivateUse1")


# What is examined.

#: Remaining shares of training at the first updates, in which FlowOpt has all of its stages.
REMAINING = (1.0, 0.5, 0.18, 0.1)


def examine(name: str) -> dict[str, list[Finding]]:
    """
    Train a small model on the device, and act with it.

    :param name: Name of a case
    :return: The findings of each part
    """
    case = next(case for case in CASES if case.name == name)
    model = case.make(case.environment(), dataset=case.data(), device=DEVICE)
    model._logger = configure_logger(0)
    model.policy.set_training_mode(True)
    assert all(isinstance(value, DeviceTensor) for value in model.policy.state_dict().values())
    parts: dict[str, list[Finding]] = {"update": []}
    for i in range(case.stages + len(REMAINING)):  # SWFP has its absorb test three updates after its last stage begins
        model._current_progress_remaining = REMAINING[min(i, len(REMAINING) - 1)]
        with recorded() as parts["batch"]:
            batch = model.sample_batch(model.batch_size)
        assert all(isinstance(value, DeviceTensor) for value in tensors(batch))
        with recorded() as findings:
            model._metrics.add(*model.execution.step(model, batch))
        parts["update"] += findings
        model._n_updates += 1
    n_kinds = len(model._metrics.sums)
    with recorded() as parts["log"]:
        model._record_training()
    assert n_kinds > 0
    observation, _ = case.environment().reset(seed=0)
    for sampler in model.policy.samplers:
        with recorded() as parts[f"act: {sampler}"]:
            model.policy.with_sampler(sampler).predict(observation)
    return parts


def differences(name: str, n_updates: int = 3) -> dict[str, float]:
    """
    Train the same small model on the device and on the CPU, with the same batches and noise.

    :param name: Name of a case
    :param n_updates: Number of updates
    :return: The largest difference of each parameter, and the relative difference of each metric of the last update
    """
    case = next(case for case in CASES if case.name == name)
    first, second = (case.make(case.environment(), dataset=case.data(), device=device) for device in ("cpu", DEVICE))
    for _ in range(n_updates):
        batch = first.sample_batch(first.batch_size)
        noise = first.draw_noise(first.batch_size)
        metrics = first.update(batch, noise)
        on_device = second.update(to_device(batch, second.device), to_device(noise, second.device))
    after = second.policy.state_dict()
    found = {key: float((value - after[key].host).abs().max()) for key, value in first.policy.state_dict().items()}
    return found | {key: float((value / on_device[key].host - 1).abs()) for key, value in metrics.items()}


def drawn_there(name: str, images: bool, kwargs: dict[str, Any]) -> list[Finding]:
    """
    Draw batches from a dataset on the device, and check that they are those from one on the CPU, bit by bit.

    :param name: Name of a case
    :param images: Whether the observations are stacks of images
    :param kwargs: Arguments of the algorithm
    :return: The findings
    """
    case = next(case for case in CASES if case.name == name)
    env, data = (pictures(2), collect(pictures)) if images else (case.environment(), case.data())
    data = {field: column for field, column in data.items() if field != "next_observations" or not images}
    first, second = (
        case.make(env, dataset=data, device=device, dataset_on_device=device == DEVICE, crop_probability=0.0, **kwargs)
        for device in ("cpu", DEVICE)
    )
    all_findings: list[Finding] = []
    for _ in range(3):
        expected = first.sample_batch(first.batch_size)
        with recorded() as findings:
            batch = second.sample_batch(second.batch_size)
        all_findings += findings
        for mine, other in zip(tensors(batch), tensors(expected), strict=True):
            assert isinstance(mine, DeviceTensor) and th.equal(mine.host, other)
    assert th.equal(first.host_generator.get_state(), second.host_generator.get_state())
    return all_findings


def examine_images(name: str) -> tuple[list[Finding], list[Finding]]:
    """
    An update of a model with images, which are cropped at random, from a dataset on the device.

    :param name: Name of a case
    :return: The findings of the batch, and of the update
    """
    case = next(case for case in CASES if case.name == name)
    model = case.make(pictures(), dataset=collect(pictures), device=DEVICE, dataset_on_device=True, crop_probability=1.0)
    with recorded() as drawing:
        batch = model.sample_batch(model.batch_size)
    with recorded() as updating:
        model.execution.step(model, batch)
    return drawing, updating


def pictures(n_stack: int = 1) -> AnySpaces:
    """Observations that are images, or stacks of some."""
    return AnySpaces(spaces.Box(0, 255, (n_stack, 36, 36), np.uint8), spaces.Box(-1, 1, (2,), np.float32))


#: What is found in functions of a vector of the device.
FAULTS: dict[str, tuple[str | None, Callable[[th.Tensor], Any]]] = {
    "item": ("waits", lambda x: x.sum().item()),
    "condition": ("waits", lambda x: 1 if x.sum() > 0 else 0),
    "float": ("waits", lambda x: float(x[0])),
    "cpu": ("waits", lambda x: x.cpu()),
    "list": ("waits", lambda x: x.tolist()),
    "nonzero": ("waits", lambda x: x.nonzero()),
    "mask": ("waits", lambda x: x[x > 0]),
    "assignment by a mask": ("waits", lambda x: x.clone().__setitem__(x > 0, x[:1])),
    "copy to the host": ("waits", lambda x: th.zeros(3).copy_(x)),
    "tensor of a list": ("copies", lambda x: th.tensor([1.0, 2.0, 3.0], device=x.device)),
    "new tensor of a list": ("copies", lambda x: x.new_tensor([1.0, 2.0, 3.0])),
    "tensor of an array": ("copies", lambda x: th.as_tensor(np.zeros(3), device=x.device)),
    "moved": ("copies", lambda x: th.zeros(3).to(x.device)),
    "copy from the host": ("copies", lambda x: x.clone().copy_(th.zeros(3))),
    "sum of both": ("mixes", lambda x: x + th.zeros(3)),
    "indices of the CPU": ("mixes", lambda x: x[th.tensor([0, 2])]),
    "numbers": (None, lambda x: (2.0 * x + 1.0).clamp(0, 1) ** 2),
    "scalar of the CPU": (None, lambda x: x + th.tensor(1.0)),
    "created there": (None, lambda x: x + th.arange(3, device=x.device) + th.rand(3, device=x.device)),
    "where": (None, lambda x: th.where(x > 0, x, 0.0).sum(dim=0)),
    "indices": (None, lambda x: x[th.arange(2, device=x.device)] + x[:2]),
}


def found(name: str) -> list[Finding]:
    """What is found in one of ``FAULTS``."""
    x = th.arange(3.0, device=DEVICE)
    with recorded() as findings:
        FAULTS[name][1](x)
    return findings
