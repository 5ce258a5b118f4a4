"""Online training of FQL, with an evaluation callback and a saved model, as with any algorithm of SB3."""

import argparse

import gymnasium as gym
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.monitor import Monitor

from sb3_flow import FQL


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--timesteps", type=int, default=20_000)
    parser.add_argument("--model", default="runs/fql_pendulum")
    arguments = parser.parse_args()

    evaluation = EvalCallback(Monitor(gym.make("Pendulum-v1")), eval_freq=max(arguments.timesteps // 10, 1), n_eval_episodes=5)
    model = FQL(
        "FlowPolicy",
        "Pendulum-v1",
        learning_rate=1e-3,
        normalize_q_loss=True,
        alpha=0.1,
        policy_kwargs={"net_arch": [64, 64]},
        seed=0,
    )
    model.learn(arguments.timesteps, callback=evaluation, progress_bar=True)
    model.save(arguments.model)


if __name__ == "__main__":
    main()
