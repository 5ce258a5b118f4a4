"""
Solutions of lesson 3. They use the names of the notebook: run all of its cells, then ``%run -i solutions/03_offline_rl.py``.
"""

# ruff: noqa: F821

# Exercise 1: two remedies against extrapolation.

b, c = 2.0, 5 / 12  # the critic of section 1, in closed form
inside = 0.5
print(f"(a) action {inside}, predicted {c + b * inside:.2f}, true {reward(inside):.2f}")
assert np.isclose(reward(inside), 0.75) and reward(inside) > reward(1.0)
for penalty in (1.0, 2.0, 4.0, 8.0):
    chosen = min(b / (2 * penalty), 1.0)
    print(f"(b) penalty {penalty}: action {chosen:.3f}, predicted {c + b * chosen:.2f}, true {reward(chosen):.2f}")
    numeric = grid[np.argmax(c + b * grid - penalty * grid**2)]
    assert abs(numeric - chosen) <= 0.01
# b / (2 lambda) = 1 / 4 for lambda = 4: the right amount of pessimism depends on the unknown reward.
assert b / (2 * 4.0) == 0.25 and reward(0.25) == 1.0

# Exercise 2: the role of alpha.

found = {}
for alpha, seed in ((0.03, 0), (10.0, 0), (0.0, 1), (0.0, 2), (0.0, 3)):
    th.manual_seed(seed)
    trained = made if alpha == 0.03 else HandMadeFQL(data, alpha=alpha).learn(1500)
    success, steps, _ = evaluate(trained.policy)
    with th.no_grad():
        s = th.as_tensor(START, dtype=th.float32).expand(500, 2)
        actions = trained.act(s, th.randn(500, 2))
        q = trained.q(trained.critics, s, actions.clamp(-1, 1)).mean().item()
    largest = actions.abs().amax(dim=1).mean().item()
    found[alpha, seed] = success, q, largest
    print(f"alpha {alpha:5.2f}: success {success:.2f}, steps {steps:.1f}, value {q:.1f}, largest action {largest:.1f}")
# A large alpha: the actor is the BC flow, which wanders. With alpha = 0 nothing keeps the actor near the data: its actions are
# far outside of [-1, 1]. Whether the clipped actions are good depends on the seed, and the value does not always show it.
without = [found[0.0, seed] for seed in (1, 2, 3)]
assert found[10.0, 0][0] < 0.5 and min(success for success, _, _ in without) < 0.5 and found[0.03, 0][0] > 0.8
assert min(largest for _, _, largest in without) > 1.5 > found[0.03, 0][2]
assert all(-11 < q < 1 for _, q, _ in found.values())

# Exercise 3: the smallest number of steps.

across = (GAP - START[0]) / STEP  # from the start to the gap, along x
back = (GAP - (GOAL[0] + RADIUS)) / STEP  # from the gap to the edge of the goal, along x
bound = int(np.ceil(across + back))
success, steps, _ = evaluate(made.policy)
print(f"at least {bound} steps, a value of {value_of(bound):.1f}; FQL: {steps:.1f} steps")
assert bound == 9 and steps >= bound and steps < 2 * bound
# A program that knows the maze: to the right along the floor, through the gap, and to the left.


def expert(position):
    at_gap = position[:, 0] >= GAP - 0.02
    below = position[:, 1] < 0
    target = np.where((below & ~at_gap)[:, None], [GAP + 0.05, -0.05], np.where(below[:, None], [GAP + 0.05, 0.1], GOAL))
    return np.clip((target - position) / STEP, -1, 1)


success, steps, _ = evaluate(expert)
print(f"a hand-written expert: success {success:.2f}, {steps:.1f} steps")
assert success == 1.0 and bound <= steps < bound + 4

# Exercise 4: rejection sampling.

rates = {}
for n in (1, 2, 4, 8, 32):
    chooser = model.policy.with_sampler("bc_flow", best_of_n=n)
    rates[n] = evaluate(lambda s, p=chooser: p.predict(s.astype(np.float32))[0])[:2]
    print(f"best of {n}: success {rates[n][0]:.2f}, steps {rates[n][1]:.1f}")
assert rates[1][0] < rates[4][0] < rates[32][0] and rates[32][0] > 0.8
# With a large N the best of the samples is where the critic is most optimistic, which may be an error: extrapolation again,
# but only among actions that the data supports.
