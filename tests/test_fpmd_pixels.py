"""
FPMD with images: against a second implementation in float64 (section 8 of the method's specification), and its properties.

``PixelReference`` adds to that of ``test_fpmd`` what images change: the encoder, the trunks, and where the noise is added.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from conformance.environments import AnySpaces
from gymnasium import spaces
from test_fpmd import BATCH, Reference, Variant
from transcription import Draw, parameters_of

from sb3_flow import FPMD, FQL
from sb3_flow.common.encoders import FlowExtractor, SmallEncoder
from sb3_flow.common.offline_to_online_algorithm import OfflineToOnlineAlgorithm
from sb3_flow.common.type_aliases import Batch
from sb3_flow.fpmd.fpmd import FPMDNoise

#: Two frames of three channels. With a height and a width of their own, so that neither can stand for the other.
IMAGE = spaces.Box(0, 255, (6, 17, 20), dtype=np.uint8)
ARM = spaces.Box(-np.inf, np.inf, (3,))
TORQUE = spaces.Box(-1, 1, (2,))
SMALL: dict[str, Any] = {"flow_steps": 2, "particles": 3, "learning_starts": 4, "batch_size": 8, "buffer_size": 200}


def make_model(space: spaces.Space = IMAGE, action_space: spaces.Box = TORQUE, **kwargs: Any) -> FPMD:
    policy_kwargs = {"net_arch": [12, 10], **kwargs.pop("policy_kwargs", {})}
    options = {**SMALL, "seed": 0, "device": "cpu", **kwargs}
    return FPMD("FlowPolicy", AnySpaces(space, action_space), policy_kwargs=policy_kwargs, **options)


def random_images(n: int, seed: int = 0, space: spaces.Box = IMAGE) -> th.Tensor:
    return th.from_numpy(np.random.default_rng(seed).integers(0, 256, (n, *space.shape), dtype=np.uint8))


# The second implementation.


@dataclass
class PixelVariant(Variant):
    weight_mode: str = "temp"
    reward_scale: float = 1.0
    noisy_particles: bool = True
    # Not an argument of the algorithm:
    with_arm: bool = False

    def model(self) -> FPMD:
        others = ("action_dim", "n_critics", "valid", "done", "statistics", "with_arm")
        options = {name: value for name, value in vars(self).items() if name not in others}
        space = spaces.Dict({"arm": ARM, "camera": IMAGE}) if self.with_arm else IMAGE
        kwargs = {"n_critics": self.n_critics, "features_extractor_kwargs": {"cnn_output_dim": 7}}
        model = make_model(space, spaces.Box(-1.0, 1.0, (self.action_dim,)), policy_kwargs=kwargs, **options)
        generator = th.Generator().manual_seed(1)
        with th.no_grad():
            for name, parameter in model.policy.named_parameters():
                sees = name.startswith("encoder.") or ".features_extractor." in name
                parameter.add_((0.05 if sees else 0.4) * th.randn(parameter.shape, generator=generator))
            for network in (model.policy.flow, model.policy.flow_target):
                network.net.layers[-1].weight.mul_(0.25)
        model.policy.double().value_statistics.copy_(th.tensor(self.statistics))
        # Stable-Baselines3 makes floats of images in single precision.
        assert model.policy.encoder is not None
        model.policy.encoder.register_forward_pre_hook(lambda _, inputs: as_double(inputs[0]))
        model._current_progress_remaining = 1 - self.done
        return model


def as_double(observations: Any) -> Any:
    if isinstance(observations, dict):
        return ({key: part.double() for key, part in observations.items()},)
    return (observations.double(),)


VARIANTS = {
    "R": PixelVariant(),
    "M": PixelVariant(flow="mean", equal_time_probability=0.25),
    "R noise on the best": PixelVariant(noisy_particles=False, policy_delay=1, learning_rate=0.02, policy_learning_rate=0.03),
    "R double step": PixelVariant(critic_double_step=True, n_critics=3, tau=0.2, temperature=0.5, learning_rate=0.01),
    "M dictionary": PixelVariant(flow="mean", with_arm=True, weight_mode="advantage", tau=0.1),
    "R dictionary, release": PixelVariant(with_arm=True, weight_mode="release", particles=1),
}


class PixelReference(Reference):
    """Section 8, literally. What the other one calls a state is here the latents of one."""

    owners: ClassVar[dict[str, str]] = {"critic": "critic_loss", "encoder": "critic_loss", "flow": "flow_loss"}
    variant: PixelVariant

    def encode(self, observations: Any) -> th.Tensor:
        images, arm = (observations["camera"], observations["arm"]) if self.variant.with_arm else (observations, None)
        x = (images.float() / 255).double() - 0.5
        for i, stride in enumerate((2, 1, 1, 1)):
            weight, bias = (self.parameters[f"encoder.convolutions.0.layers.{i}.{part}"] for part in ("weight", "bias"))
            height, width = ((side - 3) // stride + 1 for side in x.shape[2:])
            total = bias[None, :, None, None]
            for row in range(3):
                for column in range(3):
                    seen = x[:, :, row::stride, column::stride][:, :, :height, :width]
                    total = total + th.einsum("bchw,oc->bohw", seen, weight[:, :, row, column])
            x = th.where(total > 0, total, 0.0)
        latents = x.reshape(len(x), -1)
        return latents if arm is None else th.cat([latents, arm.double()], dim=1)

    def trunk(self, place: str, latents: th.Tensor) -> th.Tensor:
        """Linear, layer norm, tanh; what is no image is left as it is."""
        n = latents.shape[1] - (3 if self.variant.with_arm else 0)
        names = ("linear.weight", "linear.bias", "norm.weight", "norm.bias")
        weight, bias, scale, shift = (self.parameters[f"{place}.{name}"] for name in names)
        x = latents[:, :n] @ weight.T + bias
        mean = x.mean(dim=1, keepdim=True)
        variance = ((x - mean) ** 2).mean(dim=1, keepdim=True)
        return th.cat([th.tanh((x - mean) / th.sqrt(variance + 1e-5) * scale + shift), latents[:, n:]], dim=1)

    def field(self, network: str, s: th.Tensor, x: th.Tensor, *times: th.Tensor) -> th.Tensor:
        return super().field(network, self.trunk(f"{network}.features_extractor", s), x, *times)

    def q(self, network: str, k: int, s: th.Tensor, a: th.Tensor) -> th.Tensor:
        return super().q(network, k, self.trunk(f"{network}.features_extractor.members.{k}", s), a)

    def improve(self, network: str, s: th.Tensor, particles: th.Tensor, added: th.Tensor) -> tuple[th.Tensor, list[float]]:
        """4.1, pixels, inside the update: the noise on each particle, which is valued as it is then, and clipped at last."""
        if not self.variant.noisy_particles:
            return super().improve(network, s, particles, added)
        d, noisy = self.variant.dim, []
        for i in range(self.variant.particles):
            part = slice(i * d, (i + 1) * d)
            sample = self.sample(network, s, particles[:, part]).detach()
            noisy.append(sample + 0.1 * th.exp(th.tensor(self.log_alpha, dtype=th.float64)) * added[:, part])
        values = th.stack([self.q_min("critic", s, x).detach() for x in noisy], dim=1).tolist()
        best = [noisy[row.index(max(row))][b] for b, row in enumerate(values)]
        return th.clip(th.stack(best), -1, 1), [sum(row) / len(row) for row in values]

    def latents(self, batch: Batch) -> Batch:
        """The encoder learns from the states of the batch alone, and is no target's: what follows is seen by the same one."""
        return batch._replace(
            observations=self.encode(batch.observations), next_observations=self.encode(batch.next_observations).detach()
        )

    def losses(self, batch: Batch, noise: FPMDNoise) -> dict[str, th.Tensor]:
        return super().losses(self.latents(batch), noise)

    def update(self, batch: Batch, noise: FPMDNoise) -> dict[str, float]:
        return super().update(self.latents(batch), noise)

    def adam(
        self, network: str, loss: th.Tensor, learning_rate: float, gradients: tuple[th.Tensor, ...] | None = None
    ) -> tuple[th.Tensor, ...]:
        """The encoder makes one step with the critics, also where they make two."""
        if network != "critic" or gradients is not None:
            return super().adam(network, loss, learning_rate, gradients)
        own = [parameter for name, parameter in self.trained.items() if name.startswith("encoder.")]
        of_encoder = th.autograd.grad(loss, own, retain_graph=True)
        of_critics = super().adam(network, loss, learning_rate)
        super().adam("encoder", loss, learning_rate, of_encoder)
        return of_critics


def random_batch(variant: PixelVariant, seed: int) -> tuple[Batch, FPMDNoise]:
    draw = Draw(seed)
    d, n = variant.dim, variant.particles * variant.dim
    batch = draw.batch(d, variant.gamma)
    states: list[Any] = [random_images(BATCH, 2 * seed), random_images(BATCH, 2 * seed + 1)]
    if variant.with_arm:
        states = [{"arm": draw.normal(BATCH, 3), "camera": images} for images in states]
    added = draw.normal(BATCH, n if variant.noisy_particles else d)
    noise = FPMDNoise(
        particles=draw.normal(BATCH, n),
        added=added,
        x=draw.normal(BATCH, d),
        t=draw.uniform(BATCH, 1),
        r=draw.uniform(BATCH, 1),
        same=draw.uniform(BATCH, 1),
    )
    return batch._replace(observations=states[0], next_observations=states[1]), noise


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_losses_and_gradients(variant: PixelVariant) -> None:
    """Both losses at the same parameters, and their gradients to every parameter; the encoder's is that of the critics."""
    model = variant.model()
    reference = PixelReference(model, variant)
    batch, noise = random_batch(variant, seed=0)
    expected = reference.losses(batch, noise)
    loss, metrics = model.loss(batch, noise)
    assert metrics["flow_loss"].item() == pytest.approx(expected["flow_loss"].item(), rel=1e-11)
    assert variant.n_critics * metrics["critic_loss"].item() == pytest.approx(expected["critic_loss"].item(), rel=1e-11)
    loss.backward()
    reference.assert_gradients(model, expected, rtol=1e-8, atol=1e-11, untrained=("log_alpha",))


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_parameters_after_updates(variant: PixelVariant) -> None:
    """Parameters, targets and statistics after four updates, and what each of them reports, in float64."""
    model = variant.model()
    reference = PixelReference(model, variant)
    start = parameters_of(model)
    for seed in range(4):
        batch, noise = random_batch(variant, seed)
        found, expected = model.update(batch, noise), reference.update(batch, noise)
        for name, value in expected.items():
            assert found[name].item() == pytest.approx(value, rel=1e-8), name
    for name, parameter in model.policy.named_parameters():
        if name != "log_alpha":
            th.testing.assert_close(parameter.detach(), reference.parameters[name].detach(), rtol=0, atol=1e-8)
        assert not th.equal(parameter, start[name])
    assert model.policy.value_statistics.tolist() == pytest.approx([reference.mean, reference.std], rel=0, abs=1e-9)


# What is published.


def test_published_networks() -> None:
    """Section 8: 39,200 latents of 84 x 84 pixels and three frames, 50 features a head, and one encoder in all."""
    model = make_model(spaces.Box(0, 255, (84, 84, 9), dtype=np.uint8), policy_kwargs={"net_arch": [256] * 3})
    policy = model.policy
    assert policy.encoder is not None
    convolutions = [module for module in policy.encoder.modules() if isinstance(module, th.nn.Conv2d)]
    assert [(c.in_channels, c.out_channels, c.kernel_size, c.stride, c.padding) for c in convolutions] == [
        (9, 32, (3, 3), (2, 2), (0, 0)),
        *[(32, 32, (3, 3), (1, 1), (0, 0))] * 3,
    ]
    images = random_images(2, space=spaces.Box(0, 255, (9, 84, 84), dtype=np.uint8))
    assert policy.encoder.features_dim == 39_200 and policy.encode(images).latents.shape == (2, 39_200)  # type: ignore[union-attr]
    # What the encoder sees is in [-0.5, 0.5]: grey is next to nothing.
    seen = []
    convolutions[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    policy.encode(th.tensor([0, 255], dtype=th.uint8).view(2, 1, 1, 1).expand(2, 9, 84, 84))
    assert seen[0][0].unique().item() == -0.5 and seen[0][1].unique().item() == 0.5
    for network in (policy.flow, policy.flow_target):
        assert policy.features(network, images).shape == (2, 50)
        assert network.net.n_features == 50
    for network in (policy.critic, policy.critic_target):
        features = policy.features(network, images)
        assert features.shape == (2, 2, 50)  # each critic has features of its own
        assert not th.equal(features[0], features[1]) and features.abs().max() < 1
    for network in (policy.flow, policy.flow_target, policy.critic, policy.critic_target):
        assert not any(isinstance(module, th.nn.Conv2d) for module in network.modules())


def test_published_settings() -> None:
    """Section 6.2, where nothing else is asked for, and those of vectors without images."""
    names = ("weight_mode", "reward_scale", "noisy_particles", "crop_probability", "temperature", "batch_size")
    pixels, vectors = (FPMD("FlowPolicy", AnySpaces(space, TORQUE), device="cpu") for space in (IMAGE, ARM))
    assert [getattr(pixels, name) for name in names] == ["temp", 1.0, True, 1.0, 1.0, 256]
    assert [getattr(vectors, name) for name in names[:3]] == ["release", 0.2, False]
    mixed = make_model(spaces.Dict({"arm": ARM, "camera": IMAGE}))
    assert mixed.weight_mode == "temp" and mixed.policy.encoder is not None and vectors.policy.encoder is None
    other = make_model(weight_mode="advantage", reward_scale=0.5, noisy_particles=False, crop_probability=0.5)
    assert [getattr(other, name) for name in names[:4]] == ["advantage", 0.5, False, 0.5]


def test_cnn_policy_is_the_same() -> None:
    env = AnySpaces(IMAGE, TORQUE)
    models = [FPMD(name, env, seed=0, device="cpu", **SMALL) for name in ("FlowPolicy", "CnnPolicy")]
    first, second = (model.policy.state_dict() for model in models)
    assert first.keys() == second.keys() and all(th.equal(first[name], second[name]) for name in first)


def test_another_features_extractor_is_not_shared() -> None:
    """As with the other algorithms: each network has its own, and the flow trains that of the flow."""
    model = make_model(policy_kwargs={"features_extractor_class": FlowExtractor})
    assert model.policy.encoder is None
    batch, noise = tiny_batch(model)
    model.flow_loss(batch, noise, model.improve(batch, noise), th.ones(8))[0].backward()
    assert all(parameter.grad is not None for parameter in model.policy.flow.features_extractor.parameters())


def test_an_encoder_by_name() -> None:
    """As with the other algorithms."""
    model = make_model(policy_kwargs={"features_extractor_kwargs": {"encoder": "small"}})
    assert model.policy.encoder is None
    assert isinstance(model.policy.flow.features_extractor.encoders[0], SmallEncoder)


@pytest.mark.parametrize("side", [1, 2, 3, 7, 14, 15, 16])
def test_small_images(side: int) -> None:
    """Images under 15 pixels have fewer convolutions; they train all the same."""
    model = make_model(spaces.Box(0, 255, (3, side, side), dtype=np.uint8)).learn(6)
    assert th.isfinite(model.policy.encode(th.zeros(1, 3, side, side, dtype=th.uint8)).latents).all()  # type: ignore[union-attr]


# Gradients.


def tiny_batch(model: FPMD) -> tuple[Batch, FPMDNoise]:
    rng = np.random.default_rng(0)

    def part(*shape: int) -> th.Tensor:
        return th.as_tensor(rng.normal(size=shape), dtype=th.float32)

    ones = th.ones(8)
    batch = Batch(random_images(8), part(8, 2).tanh(), part(8), ones, 0.99 * ones, random_images(8, 1), ones)
    return batch, model.draw_noise(8)


def moved(module: th.nn.Module) -> bool:
    """Whether any gradient has reached a network."""
    return any(p.grad is not None and p.grad.abs().max().item() > 0 for p in module.parameters())


@pytest.mark.parametrize("flow", ["rectified", "mean"])
@pytest.mark.parametrize("encoded", [False, True], ids=["raw", "encoded"])
def test_12_only_the_critics_train_the_encoder(flow: str, encoded: bool) -> None:
    """10.2, 12. However the batch comes, the policy's loss reaches the policy and its trunk only."""
    model = make_model(flow=flow)
    policy = model.policy
    batch, noise = tiny_batch(model)
    batch = model.encoded(batch) if encoded else batch
    improved = model.improve(batch, noise)
    weight = model.weigh(batch, improved)[0]
    assert not any(part.requires_grad for part in (*improved, weight))
    model.flow_loss(batch, noise, improved, weight)[0].backward()
    assert policy.encoder is not None
    assert moved(policy.flow.features_extractor) and not moved(policy.encoder) and not moved(policy.critic)
    policy.zero_grad()
    model.critic_loss(batch, improved)[0].backward()
    assert moved(policy.encoder) and all(map(moved, policy.critic.features_extractor.members))  # type: ignore[union-attr]
    assert not moved(policy.flow)


def test_what_follows_does_not_train_the_encoder() -> None:
    """The gradient of the critics comes through the states of the batch; the target is constant."""
    model = make_model()
    assert model.policy.encoder is not None
    batch, noise = tiny_batch(model)
    improved = model.improve(batch, noise)

    def gradient(following: th.Tensor, scale: float) -> th.Tensor:
        model.policy.zero_grad()
        # A reward that undoes what the other target adds leaves the same error, and so the same gradient.
        model.critic_loss(batch._replace(next_observations=following, rewards=batch.rewards + scale), improved)[0].backward()
        return th.cat([parameter.grad.flatten() for parameter in model.policy.encoder.parameters()])  # type: ignore

    def target(following: th.Tensor) -> th.Tensor:
        with th.no_grad():
            return 0.99 * model.policy.q_values(model.policy.critic_target, following, improved.actions).amin(dim=0)

    difference = target(batch.next_observations) - target(batch.observations)  # type: ignore[arg-type]
    assert difference.abs().max() > 1e-3
    th.testing.assert_close(gradient(batch.observations, difference), gradient(batch.next_observations, 0.0))  # type: ignore


def test_the_encoder_has_no_target() -> None:
    """The target critics see through the encoder as it is, with trunks of their own that follow slowly."""
    model = make_model(learning_rate=0.01, tau=0.1)
    policy = model.policy
    assert policy.encoder is not None
    batch, noise = tiny_batch(model)
    before = policy.features(policy.critic_target, batch.observations)
    trunks = [p.clone() for p in policy.critic_target.features_extractor.parameters()]
    model.update(batch, noise)
    for old, new, net in zip(
        trunks,
        policy.critic_target.features_extractor.parameters(),
        policy.critic.features_extractor.parameters(),
        strict=True,
    ):
        th.testing.assert_close(new, th.lerp(old, net, 0.1))
        new.data.copy_(old)
    # The trunks are as they were: what the targets see has changed because the encoder has.
    assert not th.allclose(policy.features(policy.critic_target, batch.observations), before, atol=1e-3)
    names = [name for name, _ in policy.named_parameters() if "convolutions" in name]
    assert len(names) == 8 and all(name.startswith("encoder.") for name in names)


def test_images_are_encoded_once_for_all_networks() -> None:
    """Two passes an update, one for either side of a transition, whatever the particles; one for an action."""
    model = make_model(particles=5)
    assert model.policy.encoder is not None
    sizes: list[int] = []
    model.policy.encoder.register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
    model.update(*tiny_batch(model))
    assert sizes == [8, 8]
    sizes.clear()
    for sampler in model.policy.samplers:
        model.policy.with_sampler(sampler).predict(random_images(1)[0].numpy())
    assert sizes == [1] * 4


# Random shifts.


def grid(n: int) -> np.ndarray:
    """Images in which each pixel says where it is; the channels tell themselves apart."""
    place = np.arange(15 * 16, dtype=np.uint8).reshape(1, 1, 15, 16)
    return np.repeat(place, n, axis=0) + np.arange(6, dtype=np.uint8).reshape(1, 6, 1, 1)


def shifts(images: th.Tensor) -> np.ndarray:
    """How far each image, and each of its channels, is shifted, by its middle: ``(B, channels, 2)``."""
    middle = images[:, :, 7, 8].numpy() - np.arange(6, dtype=np.uint8)
    return np.stack([middle // 16, middle % 16], axis=-1).astype(int) - [7, 8]


@pytest.mark.parametrize("with_arm", [False, True], ids=["image", "dictionary"])
def test_random_shifts(with_arm: bool) -> None:
    """Section 8: by -4 to 4 in each direction, all frames alike, drawn apart for what follows; nothing else is shifted."""
    image = spaces.Box(0, 255, (6, 15, 16), dtype=np.uint8)
    model = make_model(spaces.Dict({"arm": ARM, "camera": image}) if with_arm else image)
    model.set_dataset(grid_data(with_arm))
    batch = model.sample_batch(3_000)
    sides: list[Any] = [batch.observations, batch.next_observations]
    if with_arm:
        assert set(sides[0]["arm"].flatten().tolist()) == {1.0} and set(sides[1]["arm"].flatten().tolist()) == {2.0}
        sides = [side["camera"] for side in sides]
    found = [shifts(side) for side in sides]
    for channels in found:
        assert (channels == channels[:, :1]).all()
    first, second = (channels[:, 0] for channels in found)
    for offsets in (first[:, 0], first[:, 1], second[:, 0], second[:, 1]):
        counts = np.bincount(offsets + 4, minlength=9)
        assert len(counts) == 9 and counts.min() > 3_000 / 9 * 0.8
    pairs = np.concatenate([first, second], axis=1)
    assert np.abs(np.corrcoef(pairs.T) - np.eye(4)).max() < 0.1  # rows, columns and sides, each by itself


def grid_data(with_arm: bool) -> dict[str, Any]:
    images = grid(5)

    def side(value: float) -> Any:
        return {"arm": np.full((5, 3), value, dtype=np.float32), "camera": images} if with_arm else images

    data = {"observations": side(1.0), "next_observations": side(2.0), "actions": np.zeros((5, 2), dtype=np.float32)}
    return {**data, **dict.fromkeys(("rewards", "terminations", "truncations"), np.zeros(5))}


def test_others_shift_both_sides_alike() -> None:
    """As published with FQL: in half of the batches, by up to 3 pixels, what precedes an action and what follows it alike."""
    space = spaces.Box(0, 255, (6, 15, 16), dtype=np.uint8)
    kwargs = {"net_arch": [8], "features_extractor_kwargs": {"cnn_output_dim": 4}}
    model: OfflineToOnlineAlgorithm = FQL("FlowPolicy", AnySpaces(space, TORQUE), seed=0, device="cpu", policy_kwargs=kwargs)
    model.set_dataset(grid_data(False))
    n_shifted = 0
    for _ in range(60):
        batch = model.sample_batch(20)
        first, second = shifts(batch.observations)[:, 0], shifts(batch.next_observations)[:, 0]  # type: ignore[arg-type]
        assert (first == second).all() and np.abs(first).max() <= 3
        n_shifted += first.any()
    assert 18 < n_shifted < 42


# Use.


@pytest.mark.parametrize("space", [IMAGE, spaces.Dict({"arm": ARM, "camera": IMAGE})], ids=["image", "dictionary"])
def test_going_on_after_a_file(space: spaces.Space, tmp_path: Path) -> None:
    """The encoder, its optimizer and the choices by observation space are saved: both go on alike, to the bit."""
    model = make_model(space, critic_double_step=True).learn(12)
    model.save(tmp_path / "model")
    model.save_replay_buffer(tmp_path / "buffer")
    loaded = FPMD.load(tmp_path / "model", env=AnySpaces(space, TORQUE), device="cpu")
    loaded.load_replay_buffer(tmp_path / "buffer")
    assert (loaded.weight_mode, loaded.reward_scale, loaded.noisy_particles) == ("temp", 1.0, True)
    for one in (model, loaded):
        one.train(3, 8)
    for name, value in model.policy.state_dict().items():
        assert th.equal(value, loaded.policy.state_dict()[name]), name


class Sides(gym.Env):
    """A bright half of an image says to which side to act, and the further the better. One step an episode."""

    observation_space = spaces.Box(0, 255, (16, 16, 3), dtype=np.uint8)
    action_space = spaces.Box(-2, 2, (1,))

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.side = int(self.np_random.integers(2))
        return self.image(self.side), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        return self.image(self.side), float(action[0]) * (1 if self.side else -1), True, False, {}

    @staticmethod
    def image(side: int) -> np.ndarray:
        image = np.full((16, 16, 3), 60, dtype=np.uint8)
        image[:, 8 * side : 8 * side + 8] = 190
        return image


@pytest.mark.nightly
@pytest.mark.slow
@pytest.mark.parametrize("flow", ["rectified", "mean"])
def test_learns_from_images(flow: Any) -> None:
    """A few hundred updates tell left from right, in one step of the flow."""
    options: dict[str, Any] = dict(learning_starts=100, batch_size=32, particles=8, flow_steps=3, alpha_interval=20)
    options |= dict(tau=0.05, policy_delay=1, learning_rate=1e-3, policy_learning_rate=1e-3, buffer_size=1_000)
    model = FPMD("FlowPolicy", Sides(), flow=flow, seed=0, device="cpu", policy_kwargs={"net_arch": [32, 32]}, **options)
    model.learn(400)
    left, right = (model.predict(np.stack([Sides.image(side)] * 50))[0] for side in (0, 1))
    assert left.mean() < -1 and right.mean() > 1
