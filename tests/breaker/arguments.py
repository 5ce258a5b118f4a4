"""Arguments of constructors: each argument of each algorithm with values of other types, generated from the type hints."""

import math
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch as th
from conformance.environments import AnySpaces, collect, pendulum
from gymnasium import spaces
from stable_baselines3 import SAC
from stable_baselines3.common.noise import NormalActionNoise

from breaker.data import SMALL
from breaker.outcome import Input
from sb3_flow import FPMD, FQL, GFP, QAM, SWFP, StreamingFlow
from sb3_flow.baselines import OfflineSAC, OfflineTD3
from sb3_flow.common.arguments import RANGES, hints_of
from sb3_flow.fql import FQLPolicy
from sb3_flow.methods import METHODS

ENV = pendulum()
#: Values that are no numbers, and the message about an argument that is one.
NO_NUMBERS: list[tuple[Any, str]] = [
    ("many", "is 'many'; it must be a"),
    ([], r"is \[\]; it must be a"),
    (np.zeros(2), r"is array.*; it must be a"),
    (math.nan, "is nan; it must be a finite number"),
    (math.inf, "is inf; it must be a finite number"),
]


def of_another_type() -> Iterator[Input]:
    """Every number of every method with what is no number; each base class is checked once."""
    seen: set[tuple[str, Any]] = set()
    for method in METHODS:
        cls = method.algorithm
        for argument, hint in hints_of(cls).items():
            if hint not in (int, float) or (argument, cls.__mro__[1]) in seen:
                continue
            seen.add((argument, cls.__mro__[1]))
            for value, message in NO_NUMBERS:
                given = {argument: value}
                yield Input(
                    f"{cls.__name__}({argument}={value!r})",
                    lambda _, c=cls, g=given: c("FlowPolicy", ENV, device="cpu", **g),
                    f"`{argument}` {message}",
                )


def out_of_range() -> Iterator[Input]:
    hints = hints_of(FQL)
    for argument, (low, high) in RANGES.items():
        if argument in hints:
            for value in (low - 1, high + 1):
                if math.isfinite(value):
                    given = {argument: value}
                    yield Input(
                        f"FQL({argument}={value})", lambda _, g=given: fql(**g), rf"`{argument}` is -?[\d.e]+; it must be"
                    )


def fql(policy: Any = "FlowPolicy", env: Any = ENV, **kwargs: Any) -> Any:
    FQL(policy, env, **{**SMALL, **kwargs})


def policy_kwargs(**kwargs: Any) -> Any:
    return fql(policy_kwargs={"net_arch": [4], **kwargs})


def single() -> list[Input]:
    shared = {"net_arch": [4]}

    def after_sac() -> None:
        SAC("MlpPolicy", ENV, policy_kwargs=shared, buffer_size=10, device="cpu")  # writes `use_sde` into it
        fql(policy_kwargs=shared)

    wrong: dict[str, tuple[Any, str]] = {
        "no environment": (lambda: fql(env=None), "neither an environment nor a dataset: pass"),
        "policy is None": (lambda: fql(None), "`policy` is None"),
        "an unknown policy": (lambda: fql("FlowPolice"), "FQL has no policy 'FlowPolice'; did you mean 'FlowPolicy'"),
        "policy and environment swapped": (
            lambda: fql("Pendulum-v1", "FlowPolicy"),
            "The policy comes before the environment",
        ),
        "an environment as policy": (lambda: fql(ENV, "FlowPolicy"), "The policy comes before the environment"),
        "a class that is no policy": (lambda: fql(dict), "or a subclass of FlowPolicy"),
        "a policy of SAC": (lambda: fql(SAC.policy_aliases["MlpPolicy"]), "or a subclass of FlowPolicy"),
        "batch_size=0": (lambda: fql(batch_size=0), "`batch_size` is 0; it must be at least 1"),
        "batch_size=1.5": (lambda: fql(batch_size=1.5), "`batch_size` is 1.5; it must be a whole number"),
        "batch_size=True": (lambda: fql(batch_size=True), "`batch_size` is True"),
        "device='tpu'": (lambda: fql(device="tpu"), "`device` is 'tpu'; it must be 'auto', 'cpu', 'cuda'"),
        "device=0": (lambda: fql(device=0), "`device` is 0"),
        "device=None": (lambda: fql(device=None), "`device` is None"),
        "learning_rate=None": (lambda: fql(learning_rate=None), "`learning_rate` is None"),
        "learning_rate=[1e-3]": (lambda: fql(learning_rate=[1e-3]), r"`learning_rate` is \[0.001\]"),
        "learning_rate='lin_3e-4'": (lambda: fql(learning_rate="lin_3e-4"), "must be a number or a function"),
        "a schedule without argument": (lambda: fql(learning_rate=lambda: 1e-3), "must take the remaining progress"),
        "a schedule that returns text": (lambda: fql(learning_rate=lambda _: "fast"), "and return a number"),
        "a schedule that begins with nan": (
            lambda: fql(learning_rate=lambda _: math.nan),
            "`learning_rate` is a function that begins with nan; it must return finite numbers of at least 0",
        ),
        "a schedule that begins with -1": (lambda: fql(learning_rate=lambda _: -1), "is a function that begins with -1"),
        "train_freq=0": (lambda: fql(train_freq=0), "`train_freq` is 0"),
        "train_freq='step'": (lambda: fql(train_freq="step"), "`train_freq` is 'step'"),
        "train_freq=(1,)": (lambda: fql(train_freq=(1,)), r"`train_freq` is \(1,\)"),
        "train_freq=('step', 1)": (lambda: fql(train_freq=("step", 1)), "`train_freq` is"),
        "train_freq=(1, 'year')": (lambda: fql(train_freq=(1, "year")), "such as .1, 'episode'"),
        "train_freq=(1, 'step', 2)": (lambda: fql(train_freq=(1, "step", 2)), "`train_freq` is"),
        "action_noise=0.1": (lambda: fql(action_noise=0.1), "`action_noise` is 0.1; it must be an `ActionNoise`"),
        "action_noise of three joints": (
            lambda: fql(action_noise=NormalActionNoise(np.zeros(3), np.ones(3))),
            r"`action_noise` has the shape \(3,\), but actions have \(1,\)",
        ),
        "offline_steps without data": (lambda: fql(offline_steps=5), "`offline_steps=5` needs a dataset"),
        "normalize_observations without data": (lambda: fql(normalize_observations=True), "statistics from a `dataset`"),
        "compile='fast'": (lambda: fql(compile="fast"), "Unknown `compile` 'fast'"),
        "compile='cudagraph' on a CPU": (lambda: fql(compile="cudagraph"), "needs a CUDA device"),
        "max_grad_norm=0": (lambda: fql(max_grad_norm=0), "`max_grad_norm` is 0"),
        "q_agg='max'": (lambda: fql(q_agg="max"), "Unknown `q_agg` 'max'"),
        "alpha=-1": (lambda: fql(alpha=-1), "`alpha` is -1"),
        "flow_steps=0": (lambda: fql(flow_steps=0), "`flow_steps` is 0"),
        "horizon_length=0": (lambda: fql(horizon_length=0), "`horizon_length` is 0"),
        "n-step returns of chunks": (lambda: fql(horizon_length=3, n_steps=3), "use `n_steps=1`"),
        "an unknown argument": (lambda: fql(alhpa=1.0), "no argument `alhpa`; did you mean `alpha`"),
        "ent_coef": (lambda: fql(ent_coef="auto"), "no argument `ent_coef`: flow policies have no entropy"),
        "use_sde": (lambda: fql(use_sde=True), "no argument `use_sde`: there is no gSDE"),
        "net_arch": (lambda: fql(net_arch=[4]), "`net_arch`: it belongs to the policy"),
        "tensorboard_log=3": (lambda: fql(tensorboard_log=3), "`tensorboard_log` is 3"),
        "verbose='yes'": (lambda: fql(verbose="yes"), "`verbose` is 'yes'"),
        "no policy": (lambda: FQL(), "policy"),
        "buffer_size of imitation": (
            lambda: StreamingFlow("FlowPolicy", ENV, buffer_size=10),
            "StreamingFlow has no argument `buffer_size`: it learns from data only",
        ),
        "CnnPolicy without images": (lambda: fql("CnnPolicy"), "`CnnPolicy` needs images"),
        "policy_kwargs as list": (lambda: fql(policy_kwargs=[4]), "`policy_kwargs` is .4.; it must be a dictionary"),
        "policy_kwargs as text": (lambda: fql(policy_kwargs="dict(net_arch=[4])"), "`policy_kwargs` is"),
        "flow_steps in policy_kwargs": (lambda: policy_kwargs(flow_steps=3), "is an argument of FQL: pass flow_steps"),
        "net_arch=[]": (lambda: policy_kwargs(net_arch=[]), "`net_arch` is empty"),
        "net_arch=64": (lambda: policy_kwargs(net_arch=64), "`net_arch` is 64; expected a list of widths"),
        "net_arch=['64']": (lambda: policy_kwargs(net_arch=["64"]), "`net_arch` is .'64'."),
        "net_arch=[-1]": (lambda: policy_kwargs(net_arch=[-1]), "`net_arch` is .-1."),
        "net_arch with a value function": (lambda: policy_kwargs(net_arch={"pi": [4], "vf": [4]}), "`net_arch` has the keys"),
        "activation='gellu'": (lambda: policy_kwargs(activation="gellu"), "'gellu'.*gelu"),
        "activation=3": (lambda: policy_kwargs(activation=3), "`activation` is 3"),
        "n_critics=0": (lambda: policy_kwargs(n_critics=0), "`n_critics` is 0"),
        "best_of_n=0": (lambda: policy_kwargs(best_of_n=0), "`best_of_n` is 0"),
        "an unknown sampler": (lambda: policy_kwargs(sampler="best"), "no `sampler` 'best'; choose one of one_step, bc_flow"),
        "optimizer_class='adam'": (lambda: policy_kwargs(optimizer_class="adam"), "`optimizer_class` is 'adam'.*a class"),
        "an unknown option of the optimizer": (
            lambda: policy_kwargs(optimizer_kwargs={"weight_deca": 1e-3}),
            "`optimizer_kwargs`: Adam has no argument `weight_deca`; did you mean `weight_decay`",
        ),
        "optimizer_kwargs=3": (lambda: policy_kwargs(optimizer_kwargs=3), "`optimizer_kwargs` is 3; it must be a dictionary"),
        "an unknown option of the features extractor": (
            lambda: policy_kwargs(features_extractor_kwargs={"cnn_output": 3}),
            "`features_extractor_kwargs`: FlowExtractor has no argument `cnn_output`; did you mean `cnn_output_dim`",
        ),
        "features_extractor_class='cnn'": (
            lambda: policy_kwargs(features_extractor_class="cnn"),
            "`features_extractor_class` is 'cnn'; it must be a class",
        ),
        "activation_fn and another activation": (
            lambda: policy_kwargs(activation_fn=th.nn.ReLU, activation="gelu"),
            "both `activation_fn` and another `activation`; pass only `activation`",
        ),
        "lr of the optimizer": (
            lambda: policy_kwargs(optimizer_kwargs={"lr": 1e-3}),
            "`optimizer_kwargs` has the learning rate `lr`; pass `learning_rate` to the algorithm",
        ),
        "net_ark": (lambda: policy_kwargs(net_ark=[4]), "no argument `net_ark`; did you mean `net_arch`"),
        "policy_learning_rate of FPMD": (
            lambda: FPMD("FlowPolicy", ENV, policy_learning_rate=-1e-3, **SMALL),
            "`policy_learning_rate` is -0.001; it must not be negative",
        ),
        "alpha_lr of FPMD": (lambda: FPMD("FlowPolicy", ENV, alpha_lr=-1.0, **SMALL), "`alpha_lr` is -1"),
        "reward_scale of FPMD": (
            lambda: FPMD("FlowPolicy", ENV, reward_scale=0.0, **SMALL),
            "`reward_scale` is 0.0; it must be above 0, or None",
        ),
        "init_noise_scale of FPMD": (
            lambda: FPMD("FlowPolicy", ENV, init_noise_scale=2.0, **SMALL),
            r"`init_noise_scale` is 2.0; it must be in \[0, 1\]",
        ),
        "start_from with two parts": (
            lambda: StreamingFlow("FlowPolicy", of_parts(), start_from={"a": [0], "b": [0]}, **SMALL),
            "`start_from` is .*'b'.*; it must name coordinates of one vector",
        ),
        "start_from with half an index": (
            lambda: StreamingFlow("FlowPolicy", ENV, start_from=[0.5], **SMALL),
            r"`start_from` is \[0.5\]; expected 1 indices from 0 to 2",
        ),
        "start_from as text": (
            lambda: StreamingFlow("FlowPolicy", ENV, start_from="0", **SMALL),
            "`start_from` is '0'; it must be a list or a dictionary",
        ),
        "kl_budget of QAM": (lambda: QAM("FlowPolicy", ENV, kl_budget=-1.0, **SMALL), "`kl_budget` is -1"),
    }
    accepted: dict[str, Any] = {
        "batch_size='16'": lambda: fql(batch_size="16"),
        "buffer_size=1e4": lambda: fql(buffer_size=1e4),
        "buffer_size='1e4'": lambda: fql(buffer_size="1e4"),
        "tau='5e-3'": lambda: fql(tau="5e-3"),
        "gamma as NumPy number": lambda: fql(gamma=np.float32(0.5)),
        "train_freq=[1, 'step']": lambda: fql(train_freq=[1, "step"]),
        "seed=3.0": lambda: fql(seed=3.0),
        "an id as environment": lambda: fql(env="Pendulum-v1"),
        "a policy class": lambda: fql(FQLPolicy),
        "learning_rate=0": lambda: fql(learning_rate=0),
        "a schedule": lambda: fql(learning_rate=lambda left: 1e-3 * left),
        "activation_fn": lambda: policy_kwargs(activation_fn=th.nn.ReLU),
        "use_sde=False": lambda: fql(use_sde=False),
        "policy_kwargs that SAC has changed": after_sac,
    }
    inputs = [Input(name, lambda _, f=give: f(), message) for name, (give, message) in wrong.items()]
    inputs.append(Input("device='cuda' without CUDA", lambda _: fql(device="cuda"), warning="CUDA is not available"))
    return inputs + [Input(name, lambda _, f=give: f()) for name, give in accepted.items()]


def without_effect() -> list[Input]:
    """Arguments that others make irrelevant, and the same with others."""

    def offline(cls: Any = FQL, **kwargs: Any) -> Any:
        return cls("FlowPolicy", pendulum(), dataset=collect(pendulum), **{**SMALL, **kwargs})

    def made(cls: Any, **kwargs: Any) -> Any:
        return cls("FlowPolicy", ENV, **{**SMALL, **kwargs})

    def of_images() -> Any:
        image = spaces.Box(0, 255, (3, 36, 36), np.uint8)
        env = AnySpaces(image, spaces.Box(-1, 1, (1,)))
        return FQL("FlowPolicy", env, dataset=collect(lambda: env, 40), normalize_observations=True, **SMALL)

    def sac(cls: Any = OfflineSAC, **kwargs: Any) -> Any:
        return cls("MlpPolicy", pendulum(), dataset=collect(pendulum), batch_size=4, device="cpu", **kwargs)

    noise = NormalActionNoise(np.zeros(1), np.ones(1))
    offline_only = "has no effect: all timesteps are offline updates. For an online phase after them, set `offline_steps`"
    warned: dict[str, tuple[Any, str]] = {
        "balanced_sampling without data": (
            lambda: fql(balanced_sampling=True),
            "FQL: `balanced_sampling=True` has no effect: there is no dataset",
        ),
        "dataset_on_device without data": (
            lambda: fql(dataset_on_device=True),
            "FQL: `dataset_on_device=True` has no effect: there is no dataset",
        ),
        "balanced_sampling offline": (lambda: offline(balanced_sampling=True), offline_only),
        "gradient_steps offline": (lambda: offline(gradient_steps=2), f"`gradient_steps=2` {offline_only}"),
        "train_freq offline": (lambda: offline(train_freq=4), f"`train_freq=4` {offline_only}"),
        "action_noise offline": (lambda: offline(action_noise=noise), offline_only),
        "normalize_observations of images": (of_images, "`normalize_observations` has no effect: .* has no vectors"),
        "n_critics of imitation": (
            lambda: made(StreamingFlow, policy_kwargs={"net_arch": [4], "n_critics": 3}),
            "StreamingFlowPolicy: `n_critics` has no effect",
        ),
        "warm_up without a cosine": (
            lambda: made(StreamingFlow, cosine=False, warm_up=0.3),
            "`warm_up=0.3` has no effect: the learning rate is constant with `cosine=False`",
        ),
        "sigma_1 without noise": (
            lambda: made(StreamingFlow, sigma_1=0.3),
            "`sigma_1=0.3` has no effect: only the stochastic variant has it",
        ),
        "target_vabc_at_next of GFP": (
            lambda: made(GFP, target_vabc_at_next=True),
            "`target_vabc_at_next=True` has no effect: the target has no action of the teacher",
        ),
        "guidance_fn of GFP": (
            lambda: made(GFP, eta=0.0, guidance_fn="advantage"),
            "`guidance_fn='advantage'` has no effect: there is no guidance with `eta=0`",
        ),
        "target_entropy of QAM": (
            lambda: made(QAM, target_entropy=-1.0),
            "`target_entropy=-1.0` has no effect: there is no edit with `edit_scale=0`",
        ),
        "temperature of FPMD": (
            lambda: made(FPMD, weight_mode="release", temperature=2.0),
            "`temperature=2.0` has no effect: with `weight_mode='release'`, the temperature follows `alpha`",
        ),
        "equal_time_probability of FPMD": (
            lambda: made(FPMD, equal_time_probability=0.5),
            "`equal_time_probability=0.5` has no effect: only `flow='mean'` has two times",
        ),
        "absorb_steps of SWFP": (
            lambda: made(SWFP, absorb_interval=0, absorb_steps=3),
            "`absorb_steps=3` has no effect: there is no absorption with `absorb_interval=0`",
        ),
        "learning_starts of OfflineSAC": (
            lambda: sac(learning_starts=5, buffer_size=10),
            "OfflineSAC: `learning_starts=5`, `buffer_size=10` have no effect: it is trained on a dataset only",
        ),
        "train_freq of OfflineTD3": (lambda: sac(OfflineTD3, train_freq=5), "OfflineTD3: `train_freq=5` has no effect"),
    }
    quiet: dict[str, Any] = {
        "balanced_sampling of two phases": lambda: offline(
            balanced_sampling=True, offline_steps=3, gradient_steps=2, train_freq=4, action_noise=noise
        ),
        "target_entropy of an edit": lambda: made(QAM, target_entropy=-1.0, edit_scale=0.1),
        "sigma_1 with noise": lambda: made(StreamingFlow, sigma_1=0.3, stochastic=True),
        "train_freq=1 offline": lambda: offline(train_freq=1),
        "defaults": lambda: [made(cls) for cls in (FPMD, FQL, GFP, QAM, SWFP, StreamingFlow)],
    }
    inputs = [Input(name, lambda _, f=give: f() and None, warning=text) for name, (give, text) in warned.items()]
    return inputs + [Input(name, lambda _, f=give: without_warning(f)) for name, give in quiet.items()]


def without_warning(give: Any) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*has no effect.*")
        give()


def of_parts() -> Any:
    box = spaces.Box(-1, 1, (1,))
    return AnySpaces(spaces.Dict({"a": box, "b": box}), box)


INPUTS = [*of_another_type(), *out_of_range(), *single(), *without_effect()]
