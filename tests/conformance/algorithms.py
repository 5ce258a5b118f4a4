"""The algorithms that the conformance tests run over. A new one joins by one record."""

from conformance.case import AlgorithmCase
from sb3_flow import FQL

ALGORITHMS = [
    AlgorithmCase(
        FQL,
        small={"flow_steps": 3},
        bad_arguments=(
            ({"alpha": -1.0}, "`alpha` is -1.0"),
            ({"q_agg": "max"}, "'max'"),
            ({"flow_steps": 0}, "`flow_steps` is 0"),
        ),
    ),
]
