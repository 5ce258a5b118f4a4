"""
What limits a trained Decision Flow: its critics, its flow critic, or the size of the improvement.

    python benchmarks/decision_flow_parts.py MODEL.zip ... --env cube-single-singletask-task2-v0 --dataset HELD_OUT.npz

All numbers are in units of `Q`, on transitions that training has not seen:

- `TD error`: root mean square of `Q'(s, a)` minus its target, in which the next action is one of the flow
- `V error`: root mean square of the flow critic minus the return of the true continuation; `explained` is the fraction of the
  variance of these returns that the flow critic explains
- `V within`: the correlation of both over 16 points on paths to the action of the data from different noise, at the same step
  of the same state: only this part moves actions. Steps 0, the middle one, and the last one.
- `gain`: `Q'(s, a)` of the flow's actions minus that of its BC flow from the same noise (DF-div), or minus that of the data's
  actions (DF-dir), and its spread within a state
- `shift`: mean distance of the flow's actions from those of the BC flow from the same noise (DF-div)
"""

import argparse
from pathlib import Path

import torch as th

from sb3_flow import DecisionFlow
from sb3_flow.common.environments import make_env

STATES, POINTS, TRANSITIONS = 256, 16, 4096
COLUMNS = ("weight", "mean of abs(Q)", "TD error", "V error", "explained", "V within", "gain", "spread", "shift")


def correlation(x: th.Tensor, y: th.Tensor) -> float:
    """Correlation of two variables within the rows, ``(n, m)``."""
    x, y = (each - each.mean(dim=1, keepdim=True) for each in (x, y))
    return float((x * y).mean() / (x.square().mean() * y.square().mean()).sqrt())


@th.no_grad()
def parts(model: DecisionFlow) -> list[str]:
    """The row of a model."""
    policy, n_steps = model.policy, model.flow_steps
    policy.set_training_mode(False)

    def flow_value(observations: th.Tensor, x: th.Tensor, k: th.Tensor) -> th.Tensor:
        return policy.flow_values(policy.flow_critic, observations, x, k.float() / n_steps).mean(dim=0)

    batch, noise = model.sample_batch(TRANSITIONS), model.draw_noise(TRANSITIONS)
    following = batch._replace(observations=batch.next_observations)
    next_q = model.end_value(following, policy.act_flow(batch.next_observations, noise.next_noise))
    data_q = model.end_value(batch, batch.actions)
    td = data_q - (batch.rewards + batch.discounts * batch.masks * next_q)
    inner = model.inner_states(batch, noise)
    error = flow_value(batch.observations, inner.x, inner.k) - inner.returns

    repeated = {name: getattr(batch, name)[:STATES].repeat_interleave(POINTS, dim=0) for name in ("observations", "actions")}
    states = batch._replace(**repeated, valids=th.ones(STATES * POINTS))
    within = []
    for step in (0, n_steps // 2, n_steps - 1):
        k = th.full((STATES * POINTS, 1), step)
        drawn = model.draw_noise(STATES * POINTS)._replace(k=k, on_policy=th.ones(STATES * POINTS, 1))
        points = model.inner_states(states, drawn)
        pair = (flow_value(states.observations, points.x, k), points.returns)
        within.append(correlation(*(each.view(STATES, POINTS) for each in pair)))

    z = th.randn(STATES * POINTS, policy.action_dim)
    actions = policy.act_flow(states.observations, z)
    q = model.end_value(states, actions)
    shift = "-"
    reference = model.end_value(states, states.actions)
    if model.variant == "div":
        cloned = policy.act_bc_flow(states.observations, z)
        reference, shift = model.end_value(states, cloned), f"{(actions - cloned).norm(dim=1).mean():.2f}"
    weight = f"fm_coef {model.fm_coef:g}" if model.variant == "dir" else f"beta {model.beta:g}"
    return [
        *(weight, f"{data_q.abs().mean():.1f}", f"{td.square().mean().sqrt():.2f}", f"{error.square().mean().sqrt():.2f}"),
        *(f"{1 - error.square().mean() / inner.returns.var():.3f}", ", ".join(f"{each:.2f}" for each in within)),
        *(f"{(q - reference).mean():+.2f}", f"{q.view(STATES, POINTS).std(dim=1).mean():.2f}", shift),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="+", help="files of trained models")
    parser.add_argument("--env", required=True, help="the environment")
    parser.add_argument("--dataset", required=True, help="transitions that training has not seen")
    arguments = parser.parse_args()
    env = make_env(arguments.env)
    print(f"| model | {' | '.join(COLUMNS)} |")
    print("| --- " * (1 + len(COLUMNS)) + "|")
    for path in arguments.models:
        th.manual_seed(0)
        model = DecisionFlow.load(path, env=env, dataset=arguments.dataset, compile=False, device="cpu", seed=0)
        print(f"| {path} | {' | '.join(parts(model))} |", flush=True)


if __name__ == "__main__":
    main()
