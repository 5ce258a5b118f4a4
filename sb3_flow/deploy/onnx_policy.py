"""Run a policy that ``model.export`` wrote. This file depends on numpy and ONNX Runtime only, and can be copied."""

import json
from typing import Any

import numpy as np
import onnxruntime


class OnnxPolicy:
    """
    An exported policy with the ``predict`` of SB3's policies, for instance for ``evaluate_policy``.

    :param path: A file from ``model.export``
    :param seed: Seed of the noise
    """

    def __init__(self, path: Any, seed: int | None = None) -> None:
        self.session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        self.spec = json.loads(self.session.get_modelmeta().custom_metadata_map["sb3_flow"])
        self.inputs = {each.name for each in self.session.get_inputs()}  # unused inputs are not part of the graph
        self.generator = np.random.default_rng(seed)

    def noise(self, n: int, deterministic: bool) -> np.ndarray:
        """The noise of ``n`` plans, ``(n, best_of_n, noise_dim)``."""
        if deterministic:
            return np.repeat(np.array([self.spec["deterministic_noise"]], np.float32), n, axis=0)
        return self.generator.standard_normal((n, *self.spec["noise"]), dtype=np.float32)

    def predict(self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False) -> Any:
        """As ``predict`` of SB3's policies. ``state`` has plans and histories; pass it to the next call."""
        latest, single = self.check(observation)
        n = len(next(iter(latest.values())))
        new = np.ones(n, bool) if state is None or episode_start is None else np.array(episode_start, bool)
        if state is None:
            actions = np.zeros((n, self.spec["n_action_steps"], *self.spec["action"]["shape"]), self.spec["action"]["dtype"])
            frames = {key: np.stack([part] * self.spec["n_obs_steps"], axis=1) for key, part in latest.items()}
            state = actions, np.zeros(n, int), np.zeros((n, actions[0, 0].size), np.float32), frames
        elif episode_start is None:
            new[:] = False
        actions, cursor, last, frames = state
        frames = {key: np.concatenate([frames[key][:, 1:], part[:, None]], axis=1) for key, part in latest.items()}
        for key, part in frames.items():
            part[new] = latest[key][new, None]
        rows = new | (cursor == self.spec["n_action_steps"])
        if rows.any():
            inputs = {key: part[rows] if self.spec["n_obs_steps"] > 1 else part[rows, 0] for key, part in frames.items()}
            inputs |= {"noise": self.noise(rows.sum(), deterministic), "last_actions": last[rows], "episode_start": new[rows]}
            actions, last, cursor = actions.copy(), last.copy(), np.where(rows, 0, cursor)
            actions[rows], last[rows] = self.session.run(None, {key: inputs[key] for key in self.inputs})
        result = actions[np.arange(n), cursor]
        return (result[0] if single else result), (actions, cursor + 1, last, frames)

    def check(self, observation: Any) -> tuple[dict[str, np.ndarray], bool]:
        """Check an observation. Return it as a batch by names, and whether it was a single one."""
        parts = observation if isinstance(observation, dict) else {"observation": observation}
        if parts.keys() != self.spec["observations"].keys():
            raise ValueError(f"The observation has {sorted(parts)}; expected {sorted(self.spec['observations'])}.")
        batch, single = {}, False
        for key, expected in self.spec["observations"].items():
            part, shape = np.asarray(parts[key]), tuple(expected["shape"])
            single = part.shape == shape
            if not single and part.shape[1:] != shape:
                raise ValueError(f"{key!r} has the shape {part.shape}; expected {shape} or {('n_envs', *shape)}.")
            if not np.can_cast(part.dtype, expected["dtype"], "same_kind") or not np.isfinite(part).all():
                raise ValueError(f"{key!r} has the type {part.dtype}; expected finite {expected['dtype']}.")
            batch[key] = np.array(part[None] if single else part, expected["dtype"])
        return batch, single
