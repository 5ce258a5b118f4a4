"""
What a GPU would trip over, found without one: an update neither waits for the device nor copies from the host, and no tensor
is left on the CPU. ``tests/test_cuda.py`` tests on a GPU.
"""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest
from python_process import CONTEXT

from conformance import device
from conformance.case import AlgorithmCase
from conformance.device import FAULTS, Finding
from conformance.robots import PLANNERS
from sb3_flow.imitation.imitation import Imitation

#: Functions that may wait, by the algorithm. SWFP decides on the host whether the base absorbs the blocks, once in
#: ``absorb_steps`` updates.
MAY_WAIT = {"SWFP": "has_absorbed"}


@pytest.fixture(scope="module")
def process() -> Iterator[ProcessPoolExecutor]:
    """A process that has the stand-in."""
    with ProcessPoolExecutor(1, mp_context=CONTEXT, initializer=device.register) as executor:
        yield executor


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_found(process: ProcessPoolExecutor, name: str) -> None:
    kinds = {finding.kind for finding in process.submit(device.found, name).result()}
    assert kinds == {FAULTS[name][0]} - {None}


def test_numbers_are_those_of_the_cpu(process: ProcessPoolExecutor) -> None:
    assert set(process.submit(device.differences, "FQL").result().values()) == {0.0}


def test_adjoint_matching_in_one_batch(process: ProcessPoolExecutor) -> None:
    """On a CPU, QAM evaluates its flows step by step, on other devices at all points of a path at once, with equal results."""
    found = process.submit(device.differences, "QAM", 1).result()
    assert max(found[name] for name in ("adjoint_matching_loss", "terminal_adjoint", "kl", "grad_norm")) < 1e-4


@pytest.mark.parametrize(
    ("name", "images", "kwargs"),
    [
        ("FQL", False, {}),
        ("FQL", False, {"n_steps": 3}),
        ("FQL", False, {"horizon_length": 3, "sparse_rewards": True}),
        ("FQL", True, {}),
        ("StreamingFlow", False, {}),
        ("FlowOpt", False, {}),
    ],
)
def test_batches_drawn_on_the_device(process: ProcessPoolExecutor, name: str, images: bool, kwargs: dict[str, Any]) -> None:
    """With the data there, only indices are copied, and the batches are those drawn on the CPU."""
    found = process.submit(device.drawn_there, name, images, kwargs).result()
    assert kinds(found) == {"copies"} and {finding.function for finding in found} == {"_rows"}


@pytest.mark.parametrize("name", ["FQL", "FPMD"])
def test_images(process: ProcessPoolExecutor, name: str) -> None:
    """Random crops and encoders stay on the device; FPMD has its own encoder."""
    drawing, updating = process.submit(device.examine_images, name).result()
    assert {finding.function for finding in drawing} == {"_rows"} and not updating


def test_nothing_trips_a_gpu(case: AlgorithmCase, process: ProcessPoolExecutor) -> None:
    """
    Updates stay on the device. A batch is only copied there, and a log entry only waits. ``predict`` copies the observation to
    the device and the action back; policies with histories copy more, and FlowOpt's filter iterates until plans are certified.
    """
    findings = process.submit(device.examine, case.name).result()
    assert not [finding for finding in findings["update"] if finding.function != MAY_WAIT.get(case.name)]
    assert kinds(findings["batch"]) == {"copies"}
    assert kinds(findings["log"]) == {"waits"}
    acting = [part for name, part in findings.items() if name.startswith("act: ")]
    assert acting and not any("mixes" in kinds(part) for part in acting)
    if case not in PLANNERS and not issubclass(case.cls, Imitation):
        assert all([finding.kind for finding in part] == ["copies", "waits"] for part in acting)


def kinds(findings: list[Finding]) -> set[str]:
    return {finding.kind for finding in findings}
