"""
Solutions of lesson 8. They use the names of the notebook: run all of its cells, then
``%run -i solutions/08_an_honest_experiment.py``.
"""

# ruff: noqa: F821

# Exercise 1: the number of seeds for a power of 80 %.

z = NormalDist().inv_cdf(0.975) + NormalDist().inv_cdf(0.8)
needed = math.ceil(2 * z**2 * SIGMA**2 / DELTA**2)
difference = DELTA + SIGMA * math.sqrt(2 / needed) * rng.normal(size=200_000)
power = np.mean(difference > 1.96 * SIGMA * math.sqrt(2 / needed))
print(f"{needed} seeds per algorithm; simulated power {power:.2f}")
assert needed == 63 and abs(power - 0.8) < 0.01

# Exercise 2: how to spend a budget.


def best_split(sigma, budget=20_000, cost=2_000, p=0.5):
    options = {}
    for n in range(1, budget // cost):
        m = budget // n - cost
        options[n, m] = math.sqrt((sigma**2 + (p * (1 - p) - sigma**2) / m) / n)
    return min(options, key=options.get), options


split, options = best_split(SIGMA)
print(f"sigma 0.1: {split[0]} seeds with {split[1]} episodes, standard error {options[split]:.4f}")
small_split, small_options = best_split(0.01)
print(f"sigma 0.01: {small_split[0]} seeds with {small_split[1]} episodes, standard error {small_options[small_split]:.4f}")
assert split == (9, 222) and small_split[0] < split[0] and options[split] < options[1, 18_000]

# Exercise 3: Student's interval.


def student_coverage(draw, n=5, studies=20_000, t=2.776):
    samples, truth = draw((studies, n))
    half = t * samples.std(axis=1, ddof=1) / math.sqrt(n)
    return float(np.mean(np.abs(samples.mean(axis=1) - truth) <= half))


normal = student_coverage(lambda shape: (rng.normal(size=shape), 0.0))
skewed = student_coverage(lambda shape: ((rng.random(shape) > 0.1).astype(float), 0.9))
print(f"coverage of Student's interval: normal scores {normal:.3f}, one failure in ten {skewed:.3f}")
print(f"coverage of the bootstrap: normal scores {coverage[5]:.3f}")
# Exact for normal scores. With rare failures, five seeds often contain none (0.9^5 = 59 %): the interval has no width.
assert abs(normal - 0.95) < 0.01 and abs(skewed - (1 - 0.9**5)) < 0.05 and coverage[5] < normal

# Exercise 4: the table.

PROBLEMS = [
    "three seeds on two tasks, without intervals",
    "different numbers of seeds",
    "tuned per task against published settings: unequal budgets",
    "the best evaluation during training, which is biased like the best of several settings",
    "no word on whether the final seeds were also used for tuning",
    "bold print instead of a test; 'best on all tasks' is not supported for two of them",
    "a standard error is not a 95 % interval",
    "number of episodes per evaluation is not stated",
]
assert len(PROBLEMS) >= 5
by_chance = 2 * (1 - NormalDist(0, SIGMA * math.sqrt(2 / 3)).cdf(0.05))
print(f"cube: a difference of 0.05 or more by chance: {by_chance:.2f}")
assert abs(by_chance - 0.54) < 0.01
seed_deviation = 0.02 * math.sqrt(8)  # of our method, from the standard error of eight seeds; the baseline was not tuned
bias = largest(20) * seed_deviation  # if each setting was tried with one seed
standard_error = math.hypot(0.02, 0.03)
print(f"maze: difference 0.34, standard error {standard_error:.3f}, bias of the best of 20 settings at most {bias:.2f}")
# Even after subtracting this bias, the difference is more than six standard errors.
assert 0.34 - bias > 6 * standard_error
