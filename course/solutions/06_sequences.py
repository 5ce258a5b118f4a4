"""
Solutions of lesson 6. They use the names of the notebook: run all of its cells, then ``%run -i solutions/06_sequences.py``.
"""

# ruff: noqa: F821

# Exercise 1: random walks with choices that hold for h steps.

d, n = 0.1, 16
for h in (1, 4, 16):
    choices = rng.choice([-1, 1], (200_000, n // h)).repeat(h, axis=1)
    std = (d * choices).sum(axis=1).std()
    # n / h independent choices, each of which moves by +- h d: variance (n / h) (h d)^2 = n h d^2.
    print(f"h = {h}: std {std:.3f}, closed form {d * math.sqrt(n * h):.3f}")
    assert abs(std - d * math.sqrt(n * h)) < 0.01

# Exercise 2: executing a part of a chunk.

changes = {}
for n_action_steps in (1, 2, 4, 8, 16):
    chunks.policy.n_action_steps = n_action_steps
    changes[n_action_steps] = side_changes(run(chunks))
    # New chunks at steps n, 2 n, ... below H - 1, each with a new side in half of the cases.
    expected = 0.5 * len(range(n_action_steps, H - 1, n_action_steps))
    print(f"{n_action_steps} actions of a chunk: {changes[n_action_steps]:.2f} side changes, perfect BC policy {expected}")
    assert abs(changes[n_action_steps] - expected) < max(0.5, 0.3 * expected)
chunks.policy.n_action_steps = H
assert changes[1] > changes[4] > changes[16]
# The lateral position, or the last action, as a part of the observation would tell the policy on which side it is. A history
# of these observations (`n_obs_steps`) would not: they contain only the time.

# Exercise 3: the width of the tube.

k = math.log(SIGMA_0 / 0.01)
print(f"k = ln(10) = {k:.3f}; width at the end {SIGMA_0 * math.exp(-k):.3f}")
assert math.isclose(SIGMA_0 * math.exp(-k), 0.01)
undecided = math.erf(0.02 / SIGMA_0 / math.sqrt(2))
print(f"share of starts within 0.02 of the middle: {undecided:.3f}")
assert abs(undecided - np.mean(np.abs(SIGMA_0 * rng.normal(size=1_000_000)) < 0.02)) < 0.005


def distance_after(k, distance=0.02):
    """The distance from a curve at rest after `H` Euler steps of the field `-k a`."""
    a = distance
    for _ in range(H):
        a += -k * a / H
    return a


# With k = H one step returns exactly to the curve; beyond it steps overshoot, and above 2 H the distance grows.
assert distance_after(H) == 0 and abs(distance_after(1.9 * H)) < 0.02 < abs(distance_after(2.1 * H))

# Exercise 4: evaluations in an episode.


def evaluations_in_an_episode(model):
    count = []
    handle = model.policy.average.net.register_forward_hook(lambda *_: count.append(1))
    run(model, n=1)
    handle.remove()
    return len(count)


totals = {}
for n_action_steps in (16, 8):
    chunks.policy.n_action_steps = n_action_steps
    totals[f"chunks, {n_action_steps} executed"] = evaluations_in_an_episode(chunks)
chunks.policy.n_action_steps = H
totals["streaming"] = evaluations_in_an_episode(streaming)
print(totals)
# Ten Euler steps per chunk are shared by its actions, so long chunks need fewer evaluations in total. Streaming distributes
# them: one for each action, none of which has to wait.
assert totals == {"chunks, 16 executed": 10, "chunks, 8 executed": 20, "streaming": 16}
