"""The algorithms for any environment, which most conformance tests run over."""

from conformance.cases import CASES
from conformance.environments import pendulum

ALGORITHMS = [case for case in CASES if case.environment is pendulum]
