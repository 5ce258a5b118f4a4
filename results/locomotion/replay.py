"""
Collect the data of the locomotion tasks: the replay buffer of Stable-Baselines3's SAC, from its first step on.

    python results/locomotion/replay.py HalfCheetah-v5 --steps 150000 --seed 0 --directory runs/data
"""

import argparse
from pathlib import Path

import numpy as np
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.monitor import Monitor

from sb3_flow.common.environments import make_env


class Progress(BaseCallback):
    """Print the mean return of the last ten episodes."""

    def _on_step(self) -> bool:
        if self.num_timesteps % 10_000 == 0:
            returns = [episode["r"] for episode in list(self.model.ep_info_buffer or [])[-10:]]
            print(f"{self.num_timesteps:,} steps: return {np.mean(returns or [np.nan]):.0f}", flush=True)
        return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("env_id")
    parser.add_argument("--steps", type=int, default=150_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--directory", type=Path, default=Path("runs/data"))
    arguments = parser.parse_args()
    env = Monitor(make_env(arguments.env_id))
    sac = SAC("MlpPolicy", env, learning_starts=5_000, buffer_size=arguments.steps, seed=arguments.seed)
    sac.learn(arguments.steps, callback=Progress())

    buffer = sac.replay_buffer
    assert buffer is not None and buffer.size() == arguments.steps
    dones, timeouts = buffer.dones[:, 0].astype(bool), buffer.timeouts[:, 0].astype(bool)
    truncations = timeouts.copy()
    truncations[-1] |= not dones[-1]  # the episode that was not finished
    arguments.directory.mkdir(parents=True, exist_ok=True)
    path = arguments.directory / f"{arguments.env_id}-sac-replay.npz"
    np.savez(
        path,
        observations=buffer.observations[:, 0].astype(np.float32),
        next_observations=buffer.next_observations[:, 0].astype(np.float32),
        actions=sac.policy.unscale_action(buffer.actions[:, 0]).astype(np.float32),
        rewards=buffer.rewards[:, 0],
        terminations=dones & ~timeouts,
        truncations=truncations,
    )
    print(f"Wrote {path}")


if __name__ == "__main__":
    main()
