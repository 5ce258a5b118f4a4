"""
Solutions of lesson 7. They use the names of the notebook: run all of its cells, then ``%run -i solutions/07_many_robots.py``.
"""

# ruff: noqa: F821

# Exercise 1: symmetry, and random starts.

stuck = repair(swap, th.zeros(1, 2, 2, BASIS.n_modes))
distance = smallest_distance(positions(swap, stuck))
sideways = stuck[0, :, 1].abs().max().item()
print(f"from y = 0: smallest distance {distance:.2f} m, largest coordinate sideways {sideways:.1e}")
# All pushes are along the x axis: the robots are pushed back on their line and never leave it.
assert distance < 2 * LIMITS.radius and sideways == 0
generator = th.Generator().manual_seed(0)
sides = []
for _ in range(200):
    y = repair(swap, random_plans(swap, BASIS, 0.05, generator))
    if smallest_distance(positions(swap, y)) >= 2 * LIMITS.radius:
        sides.append(winding_angles(positions(swap, y))[0, 1].item() > 0)
print(f"{len(sides)} of 200 repaired; {np.mean(sides):.2f} with a positive angle")
assert len(sides) > 150 and abs(np.mean(sides) - 0.5) < 0.15

# Exercise 2: the number of samples.

accuracy, w, a_max, horizon = 0.01, 5.0, LIMITS.a_max, LIMITS.horizon


def by_speed(error):
    return math.ceil(horizon / (2 * error / w)) + 1


def by_chords(error):
    return math.ceil(horizon / math.sqrt(8 * error / (2 * a_max))) + 1


print(f"error of 1 cm: {by_speed(accuracy)} samples by the speed, {by_chords(accuracy)} by chords")
print(f"error of 0.01 cm: {by_speed(1e-4)} and {by_chords(1e-4)}")
# The number grows with 1 / error for the speed, and with its square root for chords.
assert by_speed(accuracy) == 2501 and by_chords(accuracy) == 72
assert abs(by_speed(1e-4) / by_speed(1e-2) - 100) < 1 and abs(by_chords(1e-4) / by_chords(1e-2) - 10) < 0.2

# Exercise 3: tracking errors.

margin = certificate.certify(swap, plans["one way"]).margin.item()
e = margin / 2  # both robots may deviate toward each other: the margin must be at least 2 e
points = positions(swap, plans["one way"])
worst = math.inf
for _ in range(2000):
    directions = th.randn(2, 2, len(TIMES), dtype=th.float64)
    disturbed = points + e * directions / directions.norm(dim=1, keepdim=True)
    worst = min(worst, smallest_distance(disturbed))
toward = (points[1] - points[0]) / (points[1] - points[0]).norm(dim=0)
meeting = smallest_distance(th.stack([points[0] + e * toward, points[1] - e * toward]))
print(f"margin {margin:.3f} m: deviations of {e:.3f} m leave {worst:.3f} m at random, {meeting:.3f} m in the worst case")
assert worst >= meeting >= 2 * LIMITS.radius - 1e-9
assert smallest_distance(th.stack([points[0] + 1.5 * e * toward, points[1] - 1.5 * e * toward])) < meeting

# Exercise 4: the number of proposals.

for sigma in (0.2, 0.7):
    trials = [random_plans(many, BASIS, sigma, th.Generator().manual_seed(seed)) for seed in range(4)]
    safe = th.cat([SafetyFilter(limits)(many, trial, max_iterations=2).safe for trial in trials])
    q = safe.double().mean().item()
    of_four = safe.view(-1, 4).any(dim=1).double().mean().item()
    print(f"sigma {sigma}: q = {q:.2f}; best of 4: measured {of_four:.2f}, formula {1 - (1 - q) ** 4:.2f}")
    # Independent proposals for one scene: the formula holds up to the error of 64 groups.
    assert abs(of_four - (1 - (1 - q) ** 4)) < 0.2
