"""Arguments of constructors: each argument of each algorithm with values of other types, generated from the type hints."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from conformance.environments import pendulum
from stable_baselines3 import SAC
from stable_baselines3.common.noise import NormalActionNoise

from breaker.data import SMALL
from breaker.outcome import Input
from sb3_flow import FQL, QAM, StreamingFlow
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
        "an unknown option of the optimizer": (lambda: policy_kwargs(optimizer_kwargs={"speed": 1}), "'speed'"),
        "features_extractor_class='cnn'": (
            lambda: policy_kwargs(features_extractor_class="cnn"),
            "`features_extractor_class` is 'cnn'; it must be a class",
        ),
        "net_ark": (lambda: policy_kwargs(net_ark=[4]), "no argument `net_ark`; did you mean `net_arch`"),
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
        "activation_fn": lambda: policy_kwargs(activation_fn=__import__("torch").nn.ReLU),
        "use_sde=False": lambda: fql(use_sde=False),
        "policy_kwargs that SAC has changed": after_sac,
    }
    inputs = [Input(name, lambda _, f=give: f(), message) for name, (give, message) in wrong.items()]
    inputs.append(Input("device='cuda' without CUDA", lambda _: fql(device="cuda"), warning="CUDA is not available"))
    return inputs + [Input(name, lambda _, f=give: f()) for name, give in accepted.items()]


INPUTS = [*of_another_type(), *out_of_range(), *single()]
