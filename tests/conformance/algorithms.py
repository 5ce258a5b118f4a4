"""The algorithms that the conformance tests run over. A new one joins by one record."""

from conformance.case import AlgorithmCase
from sb3_flow import FQL, GFP, QAM

NO_FLOW_STEPS = ({"flow_steps": 0}, "`flow_steps` is 0")

ALGORITHMS = [
    AlgorithmCase(
        FQL,
        small={"flow_steps": 3},
        bad_arguments=(({"alpha": -1.0}, "`alpha` is -1.0"), ({"q_agg": "max"}, "'max'"), NO_FLOW_STEPS),
    ),
    AlgorithmCase(
        GFP,
        small={"flow_steps": 3, "target_agg": "mean", "guidance_agg": "min"},
        bad_arguments=(
            ({"eta": -1.0}, "`eta` is -1.0"),
            ({"guidance_fn": "sigmoid"}, "'sigmoid'.*'softmax', 'advantage'"),
            ({"guidance_agg": "mean"}, "'mean'.*'actor', 'min'"),
            ({"target_agg": "critic"}, "'critic'.*'vabc'"),
            ({"policy_kwargs": {"encode_time_dim": 7}}, "`encode_time_dim` is 7"),
            NO_FLOW_STEPS,
        ),
    ),
    AlgorithmCase(
        QAM,
        small={"flow_steps": 3},
        bad_arguments=(
            ({"inv_temp": -1.0}, "`inv_temp` is -1.0"),
            ({"rho": -0.5}, "`rho` is -0.5"),
            ({"fql_alpha": 3.0, "edit_scale": 0.1}, "two variants"),
            ({"edit_scale": 1.5}, "`edit_scale` is 1.5"),
            ({"target_entropy": "half"}, "'half'.*'auto'"),
            NO_FLOW_STEPS,
        ),
    ),
    AlgorithmCase(QAM, variant="EDIT", small={"flow_steps": 3, "edit_scale": 0.3}),
]
