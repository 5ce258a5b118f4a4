"""
Solutions of lesson 4. They use the names of the notebook: run all of its cells, then
``%run -i solutions/04_guidance_and_tilts.py``.
"""

# ruff: noqa: F821

# Exercise 1: temperature and divergence.

for std in (0.2, 0.05):
    tau = math.sqrt(2 * 0.5) / std  # from tau^2 s^2 / 2 = 0.5
    print(f"s = {std}: tau = {tau:.0f} for 0.5 nats; the mean moves by {tau * std**2:.3f}, one standard deviation")
    assert math.isclose(tau**2 * std**2 / 2, 0.5) and math.isclose(tau * std**2, std)
# The temperature depends on the width of the data (and on the scale of the rewards), the divergence does not.


def objective(mu, sigma, m=0.3, s=STD, tau=TAU):
    kl = math.log(s / sigma) + (sigma**2 + (mu - m) ** 2) / (2 * s**2) - 0.5
    return mu - kl / tau


best = max(objective(mu, sigma) for mu in np.linspace(-0.5, 1, 301) for sigma in np.geomspace(0.02, 1, 201))
at_tilt = objective(0.3 + TAU * STD**2, STD)
print(f"largest objective on the grid {best:.5f}, of the tilted Gaussian {at_tilt:.5f}")
assert best <= at_tilt + 1e-9 and at_tilt - best < 1e-3

# Exercise 2: what GFP's teacher learns.

a = sample_behavior(1_000_000)
of_behavior = share_above_zero(WEIGHTS, MEANS)
guided = {}
for eta in (0.1, 0.5, 2.0, 1e4, 1e-3):
    g = th.sigmoid((a - 0.4) / eta)
    guided[eta] = ((g * (a > 0)).mean() / g.mean()).item()
    print(f"eta = {eta}: P(a > 0) = {guided[eta]:.3f}")
# pi(a) sigma((Q(a) - Q') / eta), normalized. For eta to infinity the weight is 1/2 everywhere: the behavior. For eta to 0 only
# actions better than the actor's remain: pi restricted to Q(a) > Q'.
assert abs(guided[1e4] - of_behavior) < 0.005 and guided[1e-3] > 0.999
assert guided[0.1] > guided[0.5] > guided[2.0] > of_behavior

# Exercise 3: the bias of few steps, without training.


def discrete_shift(n_steps):
    path = memoryless_path(gaussian_velocity, gaussian_velocity, th.randn(n_steps, 1, 1))
    adjoints = lean_adjoint(gaussian_velocity, path, th.full((1, 1), -TAU))[:, 0, 0]
    change = -(th.tensor(memoryless_std(n_steps)) ** 2) / 2 * adjoints
    moved = 0.0
    for i in range(n_steps):
        moved += (slope(i / n_steps) * moved + change[i].item()) / n_steps
    return moved


shifts = {n: discrete_shift(n) for n in (5, 10, 20, 100, 1000)}
print({n: round(value, 4) for n, value in shifts.items()}, f"exact: {TAU * STD**2:.4f}")
# Too far: the change of the field is too large for few steps, although the better mode of a mixture gets too little weight.
assert all(value > TAU * STD**2 for value in shifts.values())
errors = [abs(value - TAU * STD**2) for value in shifts.values()]
assert errors == sorted(errors, reverse=True) and errors[-1] < 0.002

# Exercise 4: a budget does not depend on the scale of the rewards.
# The tilted distribution with a given divergence is the same for Q and for 10 Q, with a tenth of tau. QAM adapts the
# multiplier `kl_coef` until the divergence is that of the budget, so larger values lead to a larger `kl_coef`. A fixed tau
# does not adapt.

larger = {**common, "dataset": {**data, "rewards": 10 * data["rewards"]}}
results = {}
for name, scale, settings in (
    ("budget", 1, {**common, "kl_budget": 0.3}),
    ("budget", 10, {**larger, "kl_budget": 0.3}),
    ("temperature", 10, {**larger, "inv_temp": TAU}),
):
    trained = QAM("FlowPolicy", Bandit(), flow_steps=20, rho=0.0, policy_kwargs=small, **settings).learn(700)
    results[name, scale] = share(trained.policy)
    coefficient = f", kl_coef {trained.policy.kl_coef.item():.2f}" if name == "budget" else ""
    print(f"{name}, rewards x {scale}: P(a > 0) = {results[name, scale]:.2f}{coefficient}")
results["temperature", 1] = tilted_share
moved_by_temperature = results["temperature", 10] - results["temperature", 1]
moved_by_budget = results["budget", 10] - results["budget", 1]
print(f"changed by ten times the rewards: budget {moved_by_budget:.2f}, temperature {moved_by_temperature:.2f}")
assert abs(moved_by_budget) < abs(moved_by_temperature)
