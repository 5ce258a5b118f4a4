"""Train on your own data: here the log of a noisy hand-written controller that swings up a pendulum."""

import argparse

import gymnasium as gym
import numpy as np
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

from sb3_flow import FQL


def record(n_episodes: int) -> dict[str, np.ndarray]:
    """One row per transition, under Gymnasium's names."""
    env, rng = gym.make("Pendulum-v1"), np.random.default_rng(0)
    rows = []
    for episode in range(n_episodes):
        observation, _ = env.reset(seed=episode)
        done = False
        while not done:
            cosine, sine, speed = observation
            # Increase the energy of a hanging pendulum, stabilize an upright one, and add noise.
            torque = -8 * sine - 2 * speed if cosine > 0.8 else 2 * np.sign(speed)
            action = np.clip([torque + rng.normal()], -2, 2).astype(np.float32)
            following, reward, terminated, truncated, _ = env.step(action)
            rows.append((observation, action, reward, terminated, truncated))
            observation, done = following, terminated or truncated
    names = ("observations", "actions", "rewards", "terminations", "truncations")
    return dict(zip(names, map(np.array, zip(*rows, strict=True)), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--updates", type=int, default=5_000)
    arguments = parser.parse_args()

    model = FQL(
        "FlowPolicy",
        "Pendulum-v1",
        dataset=record(arguments.episodes),
        learning_rate=1e-3,
        tau=0.02,
        normalize_q_loss=True,
        alpha=0.1,
        policy_kwargs={"net_arch": [64, 64]},
        seed=0,
    )
    model.learn(arguments.updates, progress_bar=True)
    env = Monitor(gym.make("Pendulum-v1"))
    for name, policy in {"FQL": model.policy, "behavior cloning": model.policy.with_sampler("bc_flow")}.items():
        mean, std = evaluate_policy(policy, env, n_eval_episodes=10)
        print(f"{name:<20} return {mean:.0f} +- {std:.0f}")


if __name__ == "__main__":
    main()
