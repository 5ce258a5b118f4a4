"""
Solutions of lesson 5. They use the names of the notebook: run all of its cells, then ``%run -i solutions/05_online.py``.
"""

# ruff: noqa: F821

# Exercise 1: the width at which the policy stays.


def final_variance(sigma, q=Q_RATE):
    return sigma**2 / 2 + math.sqrt(sigma**4 / 4 + sigma**2 / q)


for sigma in (0.05, 0.1, 0.4):
    variance = VARIANCE_0
    for _ in range(10_000):
        variance = 1 / (1 / variance + Q_RATE) + sigma**2
    print(f"sigma {sigma}: std {math.sqrt(variance):.3f}, closed form {math.sqrt(final_variance(sigma)):.3f}")
    assert math.isclose(variance, final_variance(sigma), rel_tol=1e-6)
# From q v^2 = sigma^2 (q v + 1):
needed = math.sqrt(Q_RATE * 0.1**4 / (Q_RATE * 0.1**2 + 1))
print(f"for a final standard deviation of 0.1: sigma = {needed:.4f}")
assert math.isclose(math.sqrt(final_variance(needed)), 0.1)

# Exercise 2: the error of one step.


def exact_gaussian(mean, std):
    def field(x, t):
        return mean + (t * std**2 - (1 - t)) / ((1 - t) ** 2 + t**2 * std**2) * (x - t * mean)

    return field


def exact_modes(x, t, means=th.tensor([-0.5, 0.5]), std=0.1):  # noqa: B008
    variance = (1 - t) ** 2 + t**2 * std**2
    posterior = th.softmax(-((x - t * means) ** 2) / (2 * variance), dim=1)
    return (posterior * (means + (t * std**2 - (1 - t)) / variance * (x - t * means))).sum(dim=1, keepdim=True)


for name, field, expected in (
    ("s = 0.3", exact_gaussian(0.6, 0.3), 0.3),
    ("s = 0.05", exact_gaussian(0.6, 0.05), 0.05),
    ("two modes", exact_modes, math.sqrt(0.5**2 + 0.1**2)),
):
    error = (euler(field, noise, 400) - euler(field, noise, 1)).square().mean().sqrt().item()
    print(f"{name}: error of one step {error:.3f}, closed form {expected:.3f}")
    assert abs(error - expected) < 0.02

# Exercise 3: half of the noise, and the best of N.

for sigma in (0.1, 0.3):
    variance = 1.0
    for _ in range(100):
        variance = variance / 4 + sigma**2
    print(f"sigma {sigma}: std {math.sqrt(variance):.3f} = {math.sqrt(4 / 3):.3f} sigma")
    assert math.isclose(variance, 4 / 3 * sigma**2)
best = rng.normal(size=(100_000, 32)).max(axis=1).mean()
print(f"mean of the best of 32: {best:.2f} standard deviations above the mean")
assert abs(best - 2.07) < 0.02

# Exercise 4: the best of 32 actions.

chooser = model.policy.with_sampler("particles")
chooser.particles = 32
left, right, success = shares(chooser)
print(f"best of 32: left {left:.2f}, right {right:.2f}, wall {1 - left - right:.2f}; success {success:.2f}")
# The critics prefer one goal by a small error, so nearly all actions go there: at most half of the episodes succeed. The value
# of an action assumes that the *current* policy acts afterwards; once all actions are the same, these values are not true.
assert max(left, right) > 0.9 and success < results["all ten steps"][2]
