"""Run a policy that ``model.export`` wrote. This file needs numpy and ONNX Runtime only, and can be copied."""

import json
from typing import Any

import numpy as np


class OnnxPolicy:
    """
    An exported policy with the ``predict`` of SB3's policies, for instance for ``evaluate_policy``.

    :param path: A file from ``model.export``
    :param seed: Seed of the noise
    :param threads: Number of threads
    """

    def __init__(self, path: Any, seed: int | None = None, threads: int = 1) -> None:
        import onnxruntime  # pip install onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.spec = json.loads(self.session.get_modelmeta().custom_metadata_map["sb3_flow"])
        self.generator = np.random.default_rng(seed)

    def noise(self, n: int, deterministic: bool) -> np.ndarray:
        """The noise of ``n`` plans, ``(n, best_of_n, noise_dim)``."""
        if deterministic:
            return np.repeat(np.array([self.spec["deterministic_noise"]], np.float32), n, axis=0)
        return self.generator.standard_normal((n, *self.spec["noise"]), dtype=np.float32)

    def predict(self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False) -> Any:
        """As ``predict`` of SB3's policies. ``state`` has plans and histories; pass it to the next call."""
        latest, single = self.check(observation)
        n, action, steps = len(next(iter(latest.values()))), self.spec["action"], self.spec["n_action_steps"]
        if state is None:  # a plan that is used up
            actions = np.zeros((n, steps, *action["shape"]), action["dtype"])
            state = actions, np.full(n, steps), np.zeros((n, actions[0, 0].size), np.float32), None
            episode_start = np.ones(n, bool)
        (actions, cursor, last, frames), new = state, np.zeros(n, bool) | (False if episode_start is None else episode_start)
        copies = {key: np.stack([part] * self.spec["n_obs_steps"], axis=1) for key, part in latest.items()}
        for key, part in copies.items():
            if not new.all():
                part[~new] = np.concatenate([frames[key][:, 1:], part[:, -1:]], axis=1)[~new]
        rows = new | (cursor == steps)
        if rows.any():
            inputs = {key: part[rows] if self.spec["n_obs_steps"] > 1 else part[rows, 0] for key, part in copies.items()}
            inputs |= {"noise": self.noise(rows.sum(), deterministic), "last_actions": last[rows], "episode_start": new[rows]}
            inputs = {each.name: inputs[each.name] for each in self.session.get_inputs()}  # the graph has only what it uses
            actions, last, cursor = actions.copy(), last.copy(), np.where(rows, 0, cursor)
            actions[rows], last[rows] = self.session.run(None, inputs)
        result = actions[np.arange(n), cursor]
        return (result[0] if single else result), (actions, cursor + 1, last, copies)

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
