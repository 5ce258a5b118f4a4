"""
An animation of Push-T: a streaming flow policy pushes the T to its goal. Executed targets are blue, the remaining targets of
the current plan orange, and targets that the next plan replaces gray.

Train on a planner's demonstrations (collect them by `sb3-flow datasets collect pusht --episodes 200`), evaluate on new seeds,
print the result of each, and animate the longest success, or else the episode with the largest coverage.

    python examples/streaming_flow_pusht.py [--updates 10000] [--seeds 10] [--film pusht.gif]

`--model` loads a trained model. `--data` uses other demonstrations, for instance human ones, by the path of their file.
`--demonstrations 20` collects 20 demonstrations for this run.
"""

import argparse
import tempfile
from typing import NamedTuple

import gymnasium as gym
import numpy as np
import torch as th
from PIL import Image, ImageDraw

from sb3_flow import StreamingFlow
from sb3_flow.common.environments import make_env
from sb3_flow.datasets import collect, load_dataset
from sb3_flow.plots import caption, write_gif
from sb3_flow.streaming_flow.stream_state import StreamState

#: Width of a frame and of the environment in pixels; steps per frame; frames per second; duration of the last frame in
#: seconds.
SIZE, WORLD, EVERY, RATE, REST = 256, 512, 2, 10, 1.5
#: First seed of the evaluation. Seeds of demonstrations have ten digits.
FIRST_SEED = 10_000
#: Colors of executed targets, remaining targets, and targets that are not executed.
SENT, PLANNED, BEYOND = "#0072B2", "#D55E00", "#AAAAAA"
LEGEND = {SENT: "executed targets", PLANNED: "remaining targets of the plan", BEYOND: "targets that the next plan replaces"}


class Episode(NamedTuple):
    """Result of an episode: success, largest coverage, and frames."""

    success: bool
    coverage: float
    pictures: list[Image.Image]

    def worth_seeing(self) -> tuple[bool, float]:
        """Key that is largest for the longest success, or else for the largest coverage."""
        return self.success, len(self.pictures) if self.success else self.coverage


def train(env: gym.Env, data: str, demonstrations: int | None, updates: int) -> StreamingFlow:
    """Train a small model on data by name or path, or on a number of new demonstrations."""
    with tempfile.TemporaryDirectory() as folder:
        if demonstrations is not None:
            data = str(collect("pusht", episodes=demonstrations, directory=folder))
        model = StreamingFlow(
            "FlowPolicy",
            env,
            dataset=load_dataset(data),
            learning_rate=1e-3,
            start_from=[0, 1],
            normalize_observations=True,
            policy_kwargs={"net_arch": [256, 256, 256]},
            seed=0,
            device="cpu",
        )
        return model.learn(updates, progress_bar=True)


def ahead(model: StreamingFlow, state: StreamState) -> np.ndarray:
    """The remaining targets of a plan without new observations, ``(n, 2)``."""
    policy, targets = model.policy, [state.actions]
    actions, latents, context = (th.as_tensor(part) for part in (state.actions, state.latents, state.context))
    for cursor in range(int(state.cursor[0]), policy.prediction_horizon):
        with th.no_grad():
            actions, latents = policy.step(context, th.cat([actions, latents], dim=1), th.full((1, 1), cursor))
        targets.append(actions.numpy())
    return policy.unscale_action(np.concatenate(targets))


def act(env: gym.Env, model: StreamingFlow, seed: int) -> Episode:
    """Run one episode."""
    observation, _ = env.reset(seed=seed)
    state, sent, pictures = None, [], []
    success, coverage, over = False, 0.0, False
    while not over:
        # With an axis for the single environment, as in the state.
        actions, state = model.predict(observation[None], state, np.array([state is None]), deterministic=True)
        sent.append(actions[0])
        observation, _, terminated, truncated, info = env.step(actions[0])
        success, coverage = success or info["is_success"], max(coverage, info["coverage"])
        over = terminated or truncated
        if over or len(sent) % EVERY == 0:
            pictures.append(draw(env, np.array(sent[-16:]), ahead(model, state), model.n_action_steps - int(state.cursor[0])))
    return Episode(success, coverage, pictures)


def draw(env: gym.Env, sent: np.ndarray, plan: np.ndarray, n_left: int) -> Image.Image:
    """A frame with the targets."""
    picture = Image.fromarray(env.render())
    pencil, scale = ImageDraw.Draw(picture), SIZE / WORLD
    for targets, color in ((plan[n_left:], BEYOND), (plan[: n_left + 1], PLANNED), (sent, SENT)):
        points = [tuple(target) for target in (targets * scale).tolist()]
        pencil.line(points, fill=color)
        for x, y in points:
            pencil.ellipse((x - 1.5, y - 1.5, x + 1.5, y + 1.5), fill=color)
    return picture


def film(pictures: list[Image.Image], file: str) -> None:
    """Write a GIF with few colors, to keep it small, and with a legend."""
    few_colors = [np.array(picture.quantize(48, dither=Image.Dither.NONE).convert("RGB")) for picture in pictures]
    frames = [caption(picture, f"{EVERY * RATE} steps per second", LEGEND) for picture in few_colors]
    write_gif(frames, file, [1 / RATE] * (len(frames) - 1) + [REST])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=10_000)
    parser.add_argument("--data", default="pusht", help="name or path of the demonstrations (states)")
    parser.add_argument(
        "--demonstrations", type=int, help="number of demonstrations to collect for this run, instead of --data"
    )
    parser.add_argument("--model", help="a saved model, instead of a new one")
    parser.add_argument("--save", help="path for the new model")
    parser.add_argument("--seeds", type=int, default=10, help="number of evaluated episodes")
    parser.add_argument("--steps", type=int, default=300, help="largest length of an episode")
    parser.add_argument("--film", default="pusht.gif")
    arguments = parser.parse_args()

    env = make_env(
        "gym_pusht/PushT-v0",
        render_mode="rgb_array",
        visualization_width=SIZE,
        visualization_height=SIZE,
        max_episode_steps=arguments.steps,
        disable_env_checker=True,
    )
    if arguments.model:
        model = StreamingFlow.load(arguments.model, device="cpu")
    else:
        model = train(env, arguments.data, arguments.demonstrations, arguments.updates)
        if arguments.save:
            model.save(arguments.save)
    best = Episode(False, -1.0, [])
    successes, coverages = 0, []
    for seed in range(FIRST_SEED, FIRST_SEED + arguments.seeds):
        episode = act(env, model, seed)
        print(f"seed {seed}: {'success' if episode.success else 'no success'}, coverage {episode.coverage:.2f}", flush=True)
        successes, coverages = successes + episode.success, [*coverages, episode.coverage]
        best = max(best, episode, key=Episode.worth_seeing)
    print(
        f"{successes} of {arguments.seeds} succeed; the largest coverage of an episode is {np.mean(coverages):.2f} on average."
    )
    film(best.pictures, arguments.film)


if __name__ == "__main__":
    main()
