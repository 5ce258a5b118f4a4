"""
Solutions of lesson 1. They use the names of the notebook: run all of its cells, then
``%run -i solutions/01_flow_matching.py``.
"""

# ruff: noqa: F821

# Exercise 1: the number of steps for an error of 1 %.


def steps_needed(std, error=0.01):
    n_steps = 2
    while abs(std_after(n_steps, std) / std - 1) > error:
        n_steps += 1
    return n_steps


needed = {std: steps_needed(std) for std in (1.0, 0.3, 0.1)}
print("steps for an error of 1 %:", needed)
# The relative error is about c / n: for narrow data c is larger, because the last steps must still shrink the distribution.
assert needed[1.0] < needed[0.3] < needed[0.1]
for std, n_steps in needed.items():
    assert abs(std_after(n_steps, std) / std - 1) <= 0.01 < abs(std_after(n_steps - 1, std) / std - 1)

# Exercise 2: the field of a mixture of Gaussians.


def mixture_velocity(x, t, weights, means, std):
    """E[v_k | x_t = x]: the fields of the components, weighted by their posterior probabilities."""
    variance = (1 - t) ** 2 + t**2 * std**2
    posterior = th.softmax(weights.log() - (x - t * means) ** 2 / (2 * variance), dim=-1)
    of_components = means + (t * std**2 - (1 - t)) / variance * (x - t * means)
    return (posterior * of_components).sum(dim=-1, keepdim=True)


WEIGHTS, MEANS, SPREAD = th.tensor([0.7, 0.3]), th.tensor([-0.5, 0.8]), 0.15
component = th.multinomial(WEIGHTS, 2_000_000, replacement=True)
mixture = MEANS[component] + SPREAD * th.randn(2_000_000)
for x, t in ((0.0, 0.3), (0.2, 0.6), (-0.4, 0.8)):
    found, error = sampled_velocity(mixture, x, t)
    expected = mixture_velocity(th.tensor([[x]]), th.tensor([[t]]), WEIGHTS, MEANS, SPREAD).item()
    print(f"x = {x}, t = {t}: sampled {found:.3f}, closed form {expected:.3f}")
    assert abs(found - expected) < 4 * error + 0.02
ends = euler(lambda x, t: mixture_velocity(x, t, WEIGHTS, MEANS, SPREAD), th.randn(20_000, 1), 200)
share = (ends > 0.15).float().mean().item()
print(f"share of the second mode: {share:.3f} (data: 0.3)")
assert abs(share - 0.3) < 0.02
# One component is the field of section 1.
one = mixture_velocity(th.tensor([[0.2]]), th.tensor([[0.4]]), th.tensor([1.0]), th.tensor([MEAN]), STD)
assert th.isclose(one, gaussian_velocity(th.tensor([[0.2]]), th.tensor([[0.4]]))).all()

# Exercise 3: the smallest loss, evaluated with the exact field.

x0, t = th.randn(400_000, 1), th.rand(400_000, 1)
for std in (1.0, 0.3):
    x1 = MEAN + std * th.randn_like(x0)
    loss = flow_matching_loss(lambda x, t, std=std: gaussian_velocity(x, t, MEAN, std), x0, x1, t).mean().item()
    print(f"s = {std}: loss {loss:.3f}, pi / 2 s = {math.pi / 2 * std:.3f}")
    assert abs(loss - math.pi / 2 * std) < 0.01
# A single point: the velocity is (m - x) / (1 - t), and nothing remains.
point = th.full_like(x0, MEAN)
loss = flow_matching_loss(lambda x, t: (MEAN - x) / (1 - t), x0, point, t.clamp(max=0.99)).mean().item()
print(f"s = 0: loss {loss:.1e}")
assert loss < 1e-6

# Exercise 4: from data to noise, and back.


def encode(velocity, x, n_steps):
    for i in range(n_steps, 0, -1):
        x = x - velocity(x, x.new_full((len(x), 1), i / n_steps)) / n_steps
    return x


with th.no_grad():
    codes = encode(ring_velocity, ring[:5_000], 200)
    decoded = euler(ring_velocity, codes, 200)
squares = (codes.norm(dim=1) ** 2).mean().item()
distance = (decoded - ring[:5_000]).norm(dim=1).mean().item()
print(f"noise: mean {codes.mean(dim=0).tolist()}, mean square {squares:.2f} (2 for a standard normal)")
print(f"mean distance of the decoded points from the data: {distance:.3f}")
assert codes.mean(dim=0).abs().max() < 0.15 and abs(squares - 2) < 0.4
# Euler's method backward is not the inverse of Euler's method forward: the field is evaluated at other points. With more steps
# the difference vanishes.
with th.no_grad():
    finer = euler(ring_velocity, encode(ring_velocity, ring[:5_000], 1000), 1000)
assert (finer - ring[:5_000]).norm(dim=1).mean().item() < distance < 0.1
