"""
Solutions of lesson 2. They use the names of the notebook: run all of its cells, then
``%run -i solutions/02_multimodal_behavior.py``.
"""

# ruff: noqa: F821
from statistics import NormalDist

# Exercise 1: the Gaussian with the smallest crash rate.

rates = {
    (round(float(mean), 2), round(float(std), 3)): gaussian_crash_rate(mean, std)
    for mean in np.linspace(0, 0.9, 19)
    for std in np.geomspace(0.05, 2, 20)
}
best = min(rates, key=rates.get)
one_side = gaussian_crash_rate(SIDE, SPREAD)
print(f"smallest crash rate {rates[best]:.1e} at mean {best[0]} and std {best[1]}; N(0.6, 0.1^2): {one_side:.4f}")
# It is at one side and narrow; of the demonstrators' two ways it has lost one: half of the probability.
assert best[0] > 0.6 and best[1] < 0.1 and rates[best] < 1e-6 and one_side < 0.002
assert min(gaussian_crash_rate(0, std) for std in np.geomspace(0.05, 0.61, 20)) > 0.37
share_left = NormalDist(SIDE, SPREAD).cdf(0)
print(f"share of actions on the left: {share_left:.1e}; demonstrators: 0.5. If the right side is closed, it always fails.")
assert share_left < 1e-8

# Exercise 2: the noise at which the paths divide.

s = 0.5
threshold = NormalDist().inv_cdf(1 - (1 + s) / 2)
ordered = th.linspace(-3, 3, 2001)[:, None]
with th.no_grad():
    ends = cloned.act(th.full((2001, 1), s), ordered)[:, 0]
    exact_ends = euler(exact_velocity(s), ordered, 200)[:, 0]
found, exact = (ordered[part > 0].min().item() for part in (ends, exact_ends))
print(f"c(0.5): closed form {threshold:.3f}, exact field {exact:.3f}, model {found:.3f}")
assert abs(exact - threshold) < 0.02 and abs(found - threshold) < 0.25

# Exercise 3: the number of steps for a crash rate below 5 %.


def crash_rate_after(n_steps):
    return crash_rate(euler(exact_velocity(0.0), th.randn(20_000, 1), n_steps).numpy())


assert crash_rate_after(1) == 1.0  # the mean
needed = next(n for n in range(1, 200) if crash_rate_after(n) < 0.05)
print(f"exact field: {needed} steps; crash rates {[round(crash_rate_after(n), 3) for n in (1, 2, 3, 5, 10, 20, 100)]}")
assert 1 < needed < 30
for n_steps in (1, 2, 5, 10):
    cloned.flow_steps = n_steps
    rate = crash_rate(cloned.predict(np.zeros((5000, 1), np.float32))[0])
    print(f"trained flow, {n_steps} steps: crash rate {rate:.2f}")
    assert n_steps > 1 or rate > 0.9  # one step: the mean
cloned.flow_steps = 10
# The trained flow need not fall below 5 % with any number of steps: its field is too smooth between the modes.

# Exercise 4: how often the wall may be hit.


def with_wall(w):
    return float(success_probability((1 - w) / 2, (1 - w) / 2))


largest = max(w for w in np.linspace(0, 1, 1001) if with_wall(w) > 0.9)
print(f"J(w = 0.1) = {with_wall(0.1):.3f}; J > 0.9 needs w < {largest:.3f}")
assert np.isclose(with_wall(0.0), 1 - 2**-8) and 0.03 < largest < 0.1


def simulate(left, right, episodes=100_000, attempts=8):
    open_right = rng.random(episodes) < 0.5
    success, running = np.zeros(episodes, bool), np.ones(episodes, bool)
    for _ in range(attempts):
        u = rng.random(episodes)
        to_left, to_right = u < left, (u >= left) & (u < left + right)
        success |= running & np.where(open_right, to_right, to_left)
        running &= (to_left | to_right) & ~success
    return success.mean()


for left_, right_ in ((0.5, 0.5), (0.4, 0.4), (0.2, 0.6), (1.0, 0.0)):
    simulated, formula = simulate(left_, right_), float(success_probability(left_, right_))
    print(f"l = {left_}, r = {right_}: simulated {simulated:.3f}, formula {formula:.3f}")
    assert abs(simulated - formula) < 0.01
