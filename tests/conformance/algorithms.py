"""The algorithms that the conformance tests run over. A new one joins by one record."""

from conformance.case import AlgorithmCase
from sb3_flow import FPMD, FQL, GFP, QAM, SWFP, DecisionFlow, StreamingFlow
from sb3_flow.baselines import ChunkDiffusion, ChunkFlow, ChunkRegression

NO_FLOW_STEPS = ({"flow_steps": 0}, "`flow_steps` is 0")
#: The learning rate stays as it is given, as that of the others does.
SMALL_CHUNKS = {"horizon_length": 4, "cosine": False}
SMALL_STREAMING = {**SMALL_CHUNKS, "k": 0.5}
SMALL_FPMD = {"flow_steps": 3, "particles": 4, "learning_starts": 10}

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
    AlgorithmCase(
        FPMD,
        small=SMALL_FPMD,
        bad_arguments=(
            ({"flow": "linear"}, "'linear'.*'rectified'.*'mean'"),
            ({"weight_mode": "exp"}, "'exp'.*'advantage'"),
            ({"alpha": 0.0}, "`alpha` is 0.0"),
            ({"policy_delay": 0}, "`policy_delay` is 0"),
            ({"particles": 0}, "`particles` is 0"),
            ({"decay_from": 0.5, "decay_until": 0.2}, "`decay_from` is 0.5"),
            ({"equal_time_probability": 2.0}, "`equal_time_probability` is 2.0"),
            NO_FLOW_STEPS,
        ),
    ),
    AlgorithmCase(
        SWFP,
        small={
            "flow_steps": 3,
            "n_blocks": 2,
            "bc_steps": 5,
            "critic_steps": 5,
            "absorb_interval": 8,
            "absorb_steps": 4,
        },
        bad_arguments=(
            ({"radius": 0.0}, "`radius` is 0.0"),
            ({"entropy_coef": -1.0}, "`entropy_coef` is -1.0"),
            ({"n_blocks": 0}, "`n_blocks` is 0"),
            ({"bc_steps": -1}, "`bc_steps` is -1"),
            ({"absorb_interval": 10, "absorb_steps": 20}, "`absorb_steps` is 20"),
            ({"q_agg": "max"}, "'max'"),
            ({"policy_kwargs": {"block_arch": []}}, "`block_arch` is empty"),
            NO_FLOW_STEPS,
        ),
        stages=15,  # 5 clone, 5 evaluate, and the fifth that improves is the first to absorb
    ),
    AlgorithmCase(
        StreamingFlow,
        small=SMALL_STREAMING,
        bad_arguments=(
            ({"k": -1.0}, "`k` is -1.0"),
            ({"k": 4.0}, "`k` is 4.0.*`horizon_length`, 4"),
            ({"sigma_0": 0.0}, "`sigma_0` is 0.0"),
            ({"stochastic": True, "sigma_0": 0.5, "sigma_1": 0.1, "k": 0.0}, "`sigma_1` is 0.1.*0.5"),
            ({"warm_up": 1.0}, "`warm_up` is 1.0"),
            ({"n_obs_steps": 0}, "`n_obs_steps` is 0"),
            ({"n_action_steps": 0}, "`n_action_steps` is 0"),
            ({"n_action_steps": 5}, "`n_action_steps` is 5.*`horizon_length`, 4"),
            ({"start_from": [0, 1]}, r"`start_from` is \[0, 1\].*1 number"),
            ({"start_from": {"arm": [0]}}, "`start_from` is {'arm': .*no vector"),
            ({"policy_kwargs": {"horizon_length": 2}}, "`horizon_length` among `policy_kwargs` is 2"),
            ({"policy_kwargs": {"best_of_n": 2}}, "`best_of_n` among `policy_kwargs` is 2"),
        ),
        online=False,
    ),
    AlgorithmCase(FPMD, variant="M", small={**SMALL_FPMD, "flow": "mean", "equal_time_probability": 0.25}),
    AlgorithmCase(
        DecisionFlow,
        small={"flow_steps": 3},
        bad_arguments=(
            ({"variant": "both"}, "'both'.*'dir'.*'div'"),
            ({"fm_coef": -1.0}, "`fm_coef` is -1.0"),
            ({"beta": 1.0}, "`beta=1.0` weighs the clone"),
            ({"variant": "div", "direction_coef": 1.0}, "is for DF-dir"),
            ({"on_policy_share": 2.0}, "`on_policy_share` is 2.0"),
            ({"flow_target": "n_step"}, "'n_step'.*'mc' or 'td'"),
            ({"expectile": 1.0}, "`expectile` is 1.0"),
            ({"policy_kwargs": {"encode_time_dim": 7}}, "`encode_time_dim` is 7"),
            NO_FLOW_STEPS,
        ),
    ),
    AlgorithmCase(DecisionFlow, variant="DIV", small={"flow_steps": 3, "variant": "div", "flow_target": "td"}),
    AlgorithmCase(StreamingFlow, variant="STOCHASTIC", small={**SMALL_STREAMING, "stochastic": True}, online=False),
    AlgorithmCase(
        ChunkFlow,
        small={**SMALL_CHUNKS, "flow_steps": 3},
        bad_arguments=(
            ({"n_action_steps": 5}, "`n_action_steps` is 5.*`horizon_length`, 4"),
            ({"policy_kwargs": {"encode_time_dim": 7}}, "`encode_time_dim` is 7"),
            NO_FLOW_STEPS,
        ),
        online=False,
    ),
    AlgorithmCase(
        ChunkDiffusion,
        small={**SMALL_CHUNKS, "diffusion_steps": 8, "ddim_steps": 3},
        bad_arguments=(
            ({"diffusion_steps": 0}, "`diffusion_steps` is 0"),
            ({"ddim_steps": 0}, "`ddim_steps` is 0"),
            ({"ddim_steps": 9}, "`ddim_steps` is 9.*`diffusion_steps`, 8"),
        ),
        online=False,
    ),
    AlgorithmCase(
        ChunkRegression,
        small=SMALL_CHUNKS,
        bad_arguments=(({"policy_kwargs": {"best_of_n": 2}}, "`best_of_n` among `policy_kwargs` is 2"),),
        online=False,
        samples=False,
    ),
    AlgorithmCase(QAM, variant="EDIT", small={"flow_steps": 3, "edit_scale": 0.3}),
]
