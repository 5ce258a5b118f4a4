"""Offline-to-online training in a point maze: on data of a scripted expert, then on the environment, in one `learn`."""

import argparse

from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.monitor import Monitor

from sb3_flow import FQL
from sb3_flow.common.environments import make_env
from sb3_flow.datasets import collect

ENV_ID = "pointmaze-medium-singletask-task1-v0"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", default="runs/pointmaze")
    parser.add_argument("--transitions", type=int, default=100_000)
    parser.add_argument("--offline-steps", type=int, default=20_000)
    parser.add_argument("--online-steps", type=int, default=10_000)
    parser.add_argument("--episodes", type=int, default=10, help="episodes of each of the six evaluations")
    arguments = parser.parse_args()

    data = collect("pointmaze-medium-navigate-v0", arguments.transitions, directory=arguments.folder, overwrite=True)
    timesteps = arguments.offline_steps + arguments.online_steps
    evaluation = EvalCallback(Monitor(make_env(ENV_ID)), eval_freq=max(timesteps // 6, 1), n_eval_episodes=arguments.episodes)
    model = FQL(
        "FlowPolicy",
        ENV_ID,
        dataset=str(data),
        offline_steps=arguments.offline_steps,
        balanced_sampling=True,
        learning_rate=1e-3,
        tau=0.02,
        alpha=1.0,
        normalize_observations=True,
        policy_kwargs={"net_arch": [128, 128, 128]},
        seed=0,
    )
    model.learn(timesteps, callback=evaluation, progress_bar=True)
    model.save(f"{arguments.folder}/fql_pointmaze")
    print(f"{model.n_offline_updates} offline updates, {model.n_env_steps} environment steps")


if __name__ == "__main__":
    main()
