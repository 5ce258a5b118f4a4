"""Run a policy that ``model.export`` wrote. This file needs numpy and ONNX Runtime only, and can be copied."""

import json
from typing import Any

import numpy as np


class OnnxPolicy:
    """``predict`` of SB3's policies, from a file (``path``) of ``model.export``. ``seed`` is that of the noise."""

    def __init__(self, path: Any, seed: int | None = None, threads: int = 1) -> None:
        import onnxruntime  # pip install onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 3  # no warnings that known actions are optional
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        if "sb3_flow" not in (metadata := self.session.get_modelmeta().custom_metadata_map):
            raise ValueError(f"{path} was not written by `model.export` of sb3_flow.")
        self.spec, self.generator = json.loads(metadata["sb3_flow"]), np.random.default_rng(seed)
        self.chunk, self.size = (tuple(output.shape[1:]) for output in self.session.get_outputs()[:2])
        self.names = {each.name for each in (*self.session.get_inputs(), *self.session.get_overridable_initializers())}

    def predict(self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False) -> Any:
        """As ``predict`` of SB3's policies. ``state`` has plans and histories; pass it to the next call."""
        latest, single = self.check(observation)
        n, length, steps = len(next(iter(latest.values()))), self.spec["n_obs_steps"], self.spec["n_action_steps"]
        known = state is None or (isinstance(state, tuple) and len(state) == 4 and np.shape(state[0]) == (n, *self.chunk))
        if not known or not (episode_start is None or np.shape(episode_start) in ((), (n,))):
            raise ValueError("`state` must be None, or what `predict` returned before for as many observations and starts.")
        new = np.full(n, state is None) | (episode_start is not None and np.asarray(episode_start).astype(bool))
        frames = {key: part[:, None].repeat(length, axis=1) for key, part in latest.items()} if length > 1 else latest
        actions, cursor, last, before = state or (new, new, np.zeros((n, *self.size), np.float32), frames)  # all are new
        for key, part in frames.items() if length > 1 else ():
            part[~new] = np.concatenate([before[key][:, 1:], part[:, -1:]], axis=1)[~new]
        inputs = {**frames, "last_actions": last, "episode_start": new}
        if steps == 1 or (rows := new | (cursor == steps)).all():
            (actions, last), cursor = self.plan(inputs, deterministic), np.zeros(n, int)
        elif rows.any():
            actions, cursor, last = actions.copy(), np.where(rows, 0, cursor), last.copy()
            actions[rows], last[rows] = self.plan({key: part[rows] for key, part in inputs.items()}, deterministic)
        return actions[0, cursor[0]].copy() if single else actions[np.arange(n), cursor], (actions, cursor + 1, last, frames)

    def plan(self, inputs: dict[str, np.ndarray], deterministic: bool) -> Any:
        """Run the graph with noise and those of the inputs that it has. ``further`` has its further outputs."""
        fixed, shape = self.spec["deterministic_noise"], (len(inputs["episode_start"]), *self.spec["noise"])
        inputs["noise"] = np.full(shape, fixed, "f4") if deterministic else self.generator.standard_normal(shape, "f4")
        plans, lasts, *self.further = self.session.run(None, {name: inputs[name] for name in self.names & inputs.keys()})
        if abs(plans.sum(dtype="d")) < np.inf:
            return plans, lasts
        raise ValueError("Actions are not finite: the parameters are invalid, or the observation is too large.")

    def check(self, observation: Any) -> tuple[dict[str, np.ndarray], bool]:
        """Check an observation. Return it as a batch by names, and whether it was a single one."""
        parts, lead = dict(observation) if isinstance(observation, dict) else {"observation": observation}, None
        if parts.keys() != self.spec["observations"].keys() or isinstance(observation, tuple):
            found = "is a tuple, as `reset` returns it" if isinstance(observation, tuple) else f"has {sorted(parts)}"
            raise ValueError(f"The observation {found}; expected {sorted(self.spec['observations'])}.")
        for key, expected in self.spec["observations"].items():
            part, shape, dtype = np.asarray(parts[key]), tuple(expected["shape"]), np.dtype(expected["dtype"])
            lead = part.shape[: part.ndim - len(shape)] if lead is None else lead  # (), or the number of observations
            fits = part.shape == (*lead, *shape) and len(lead) < 2 and np.can_cast(part.dtype, dtype, "same_kind")
            cast, valid = part.astype(dtype) if fits else part, expected.get("range")
            right = fits and part.size and abs(cast.sum(dtype="d")) < np.inf and (dtype.kind == "f" or (cast == part).all())
            if not right or (valid and ((part < valid[0]) | (part >= valid[1])).any()):
                values = f"{dtype} {shape}" + (f" from {valid[0]} to below {valid[1]}" if valid else "")
                raise ValueError(f"{key!r} is {part.dtype} {part.shape}; expected finite {values}, or a batch.")
            parts[key] = cast.reshape(-1, *shape)
        return parts, lead == ()
