"""The algorithms for several robots, which have an environment of their own."""

from conformance.cases import CASES
from conformance.scenes import scenes

PLANNERS = [case for case in CASES if case.environment is scenes]
