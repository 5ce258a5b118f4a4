"""Base class of flow policies: features, networks, optimizers, samplers."""

import copy
import json
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.preprocessing import get_action_dim, preprocess_obs
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from stable_baselines3.common.utils import get_device
from torch import nn

from sb3_flow.common.arguments import CheckedArguments, check_nested_kwargs, checked_value
from sb3_flow.common.checkpoints.saving import load_errors, pack_settings, read_policy
from sb3_flow.common.chunks import ChunkState, read_state
from sb3_flow.common.encoders import FlowExtractor, ObservationNormalizer, discrete_from_zero
from sb3_flow.common.files import atomic_write, deferred_interrupts, is_path
from sb3_flow.common.flow import guided
from sb3_flow.common.guards import check_device, check_observation, check_parts, check_state
from sb3_flow.common.networks import MLP, EnsembleMLP, VelocityMLP, split_net_arch
from sb3_flow.common.observation_wrappers import Step
from sb3_flow.common.real_time import RealTimePlanner
from sb3_flow.common.renamed import FormerName
from sb3_flow.common.type_aliases import TensorObs, Velocity

SelfPolicy = TypeVar("SelfPolicy", bound="FlowPolicy")
SelfNetwork = TypeVar("SelfNetwork", bound=nn.Module)


class Network(nn.Module):
    """
    A network with its features extractor.

    :param features_extractor: Maps preprocessed observations to features
    :param net: Maps features, and for instance actions, to the output
    """

    def __init__(self, features_extractor: BaseFeaturesExtractor, net: nn.Module) -> None:
        super().__init__()
        self.features_extractor = features_extractor
        self.net = net

    def forward(self, *inputs: Any) -> th.Tensor:
        """Say which method of the policy evaluates a network, because ``net`` takes features, not observations."""
        raise NotImplementedError(
            "A network of a policy is evaluated by the policy: `policy(observations)` for actions, `policy.q_values(network, "
            "observations, actions)` for critics, `policy.velocity(network, observations)` for flows, and "
            "`policy.one_step(network, observations, noise)` for one-step actors."
        )


def batch_size(observations: TensorObs) -> int:
    """The number of observations. It stays dynamic when a policy is traced."""
    return (next(iter(observations.values())) if isinstance(observations, dict) else observations).shape[0]


def aliases(policy_class: type[BasePolicy]) -> dict[str, type[BasePolicy]]:
    """The names of an algorithm's policy: ``"FlowPolicy"`` and those of Stable-Baselines3."""
    return dict.fromkeys(("FlowPolicy", "MlpPolicy", "CnnPolicy", "MultiInputPolicy"), policy_class)


def check_n_action_steps(n_action_steps: int | None, horizon_length: int) -> None:
    """
    :raises ValueError: If the number of executed actions of a plan is not from 1 to the number of planned actions.
    """
    if n_action_steps is not None and not 1 <= n_action_steps <= horizon_length:
        raise ValueError(
            f"`n_action_steps` is {n_action_steps}; it must be from 1 to `horizon_length`, {horizon_length}, the number of "
            "planned actions."
        )


class FlowPolicy(BasePolicy, metaclass=CheckedArguments):
    """
    Base class of flow policies. A subclass creates its networks in ``build`` and names one or more samplers.

    A sampler maps observations and noise to actions in [-1, 1]; ``predict`` scales them to the action space.
    ``deterministic=True`` uses zero noise, the mode of the noise distribution (with ``best_of_n``, zero noise and further
    noise that is the same for all observations).

    :param observation_space: Observation space
    :param action_space: Any finite ``Box``
    :param lr_schedule: Learning rate as a function of the remaining progress (from 1 to 0)
    :param net_arch: Widths of the hidden layers of all networks; or ``{"pi": [...], "qf": [...]}``: those of flows and
        actors, and those of critics and other value functions
    :param activation: Name of the activation, see ``networks.ACTIVATIONS``
    :param critic_layer_norm: Whether critics have layer norm after each activation
    :param n_critics: Number of critics
    :param horizon_length: Number of actions in a chunk
    :param n_action_steps: Number of actions that are executed before the next plan; None: the whole chunk
    :param best_of_n: Number of sampled actions; the one with the highest Q-value is executed
    :param sampler: Name of the sampler; None: the first one
    :param features_extractor_class: Features extractor; the default one depends on the observation space
    :param features_extractor_kwargs: Arguments of the features extractor; for those of the default one see ``FlowExtractor``
    :param normalize_images: Whether images are uint8 and divided by 255. If False, any box of three axes is an image.
    :param optimizer_class: The optimizer of all networks
    :param optimizer_kwargs: Arguments of the optimizer, except for the learning rate
    :raises ValueError: If an argument is out of its range.
    """

    #: Maps the name of each sampler to the name of its method, which takes ``(observations, noise)``. Set by ``build``; the
    #: first sampler is the default.
    samplers: dict[str, str]
    certified: th.Tensor
    #: Samplers that integrate a velocity field from noise, which ``known_actions`` guides.
    guided_samplers: ClassVar[tuple[str, ...]] = ()
    #: Whether a ``ControlLoop`` conditions plans on known actions by default.
    conditions_plans: ClassVar[bool] = True
    #: Arguments of this class that have no effect in a subclass.
    without_effect: ClassVar[tuple[str, ...]] = ()
    critic: Network
    _on_device: th.Tensor
    action_space: spaces.Box

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Box,
        lr_schedule: Schedule,
        net_arch: Sequence[int] | Mapping[str, Sequence[int]] = (512, 512, 512, 512),
        activation: str = "gelu",
        critic_layer_norm: bool = True,
        n_critics: int = 2,
        horizon_length: int = 1,
        n_action_steps: int | None = None,
        best_of_n: int = 1,
        sampler: str | None = None,
        features_extractor_class: type[BaseFeaturesExtractor] = FlowExtractor,
        features_extractor_kwargs: dict[str, Any] | None = None,
        normalize_images: bool = True,
        optimizer_class: type[th.optim.Optimizer] = th.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
        **method_kwargs: Any,
    ) -> None:
        if horizon_length < 1:
            raise ValueError(f"`horizon_length` is {horizon_length}; it must be at least 1.")
        if best_of_n < 1:
            raise ValueError(f"`best_of_n` is {best_of_n}; it must be at least 1.")
        if not (action_space.high > action_space.low).all():
            raise ValueError(f"The upper bounds of actions must be above the lower bounds; the space is {action_space}.")
        if n_critics < 1:
            raise ValueError(f"`n_critics` is {n_critics}; it must be at least 1.")
        nested = {"features_extractor_kwargs": features_extractor_kwargs, "optimizer_kwargs": optimizer_kwargs}
        classes = {"features_extractor_class": features_extractor_class, "optimizer_class": optimizer_class}
        check_nested_kwargs({**nested, **classes}, type(self))
        features_extractor_kwargs = dict(features_extractor_kwargs or {})
        if issubclass(features_extractor_class, FlowExtractor):
            features_extractor_kwargs.setdefault("normalized_image", not normalize_images)
        super().__init__(
            observation_space,
            action_space,
            features_extractor_class,
            features_extractor_kwargs,
            normalize_images=normalize_images,
            optimizer_class=optimizer_class,
            optimizer_kwargs=dict(optimizer_kwargs or {}),
            squash_output=True,
        )
        #: Widths of the hidden layers of flows and actors, and of value functions.
        self.net_arch, self.value_arch = split_net_arch(net_arch)
        self.activation = activation
        self.critic_layer_norm = critic_layer_norm
        self.n_critics = n_critics
        self.horizon_length = horizon_length
        #: Number of planned actions, and number of observations that a plan depends on.
        self.prediction_horizon, self.n_obs_steps = horizon_length, 1
        self.best_of_n = best_of_n
        #: Dimension of a chunk of ``horizon_length`` actions.
        self.action_dim = get_action_dim(action_space) * horizon_length
        #: Generator of the noise; None: PyTorch's global generator.
        self.generator: th.Generator | None = None
        #: Known actions of the chunk in [-1, 1] and their weights, ``(1, action_dim)`` each, see ``flow.guided``; None: none.
        self.known_actions: tuple[th.Tensor, th.Tensor] | None = None
        self.method_kwargs = method_kwargs
        #: An empty tensor with the device and the type of the parameters, not saved. To find a parameter takes longer.
        self.register_buffer("_on_device", th.empty(0), persistent=False)
        self.normalizer = ObservationNormalizer(observation_space, normalized_image=not normalize_images)
        #: Target networks.
        self.targets: list[nn.Module] = []
        self.build(**method_kwargs)
        self.n_action_steps = self.prediction_horizon if n_action_steps is None else n_action_steps
        check_n_action_steps(n_action_steps, self.prediction_horizon)
        if sampler is not None and sampler not in self.samplers:
            raise ValueError(f"There is no `sampler` {sampler!r}; choose one of {', '.join(self.samplers)}.")
        self.sampler = sampler or next(iter(self.samplers))
        if optimizer_class is th.optim.Adam:
            self.optimizer_kwargs.setdefault("fused", True)
        self.make_optimizers(lr_schedule(1))

    def build(self) -> None:
        """Create the networks and set ``samplers``. It gets the arguments that are specific to a method."""
        raise NotImplementedError

    def make_optimizers(self, lr: float) -> None:
        """
        Create the optimizers, as attributes of the policy: by default ``optimizer``, one for all networks.

        :param lr: Initial learning rate
        """
        self.optimizer = self.make_optimizer((p for p in self.parameters() if p.requires_grad), lr)

    def make_optimizer(self, parameters: Iterable[nn.Parameter], lr: float) -> th.optim.Optimizer:
        """
        Create an optimizer by ``optimizer_class`` and ``optimizer_kwargs``.

        :param parameters: Its parameters
        :param lr: Initial learning rate
        :return: The optimizer
        """
        return self.optimizer_class(list(parameters), lr=lr, **self.optimizer_kwargs)  # type: ignore[call-arg]

    @property
    def optimizers(self) -> list[th.optim.Optimizer]:
        """The optimizers that use the learning rate of the algorithm."""
        return [self.optimizer]

    # Networks.

    def make_network(
        self, make_net: Callable[[int], nn.Module], features_extractor: BaseFeaturesExtractor | None = None
    ) -> Network:
        """
        Create a network with a features extractor.

        :param make_net: Creates the network, given the number of features
        :param features_extractor: Features extractor; None: a new one of ``features_extractor_class``
        :return: The network
        """
        if features_extractor is None:
            features_extractor = self.make_features_extractor()
        return Network(features_extractor, make_net(features_extractor.features_dim))

    def make_velocity(self, encode_time_dim: int = 0) -> Network:
        """
        A velocity field: its network takes features, ``x`` and ``t``.

        :param encode_time_dim: Size of the embedding of the time; 0: the time itself
        :return: The network
        """
        return self.make_network(lambda n: VelocityMLP(n, self.action_dim, self.net_arch, self.activation, encode_time_dim))

    def make_one_step_actor(self) -> Network:
        """An actor in one pass: its network takes features and noise."""
        dim = self.action_dim
        return self.make_network(lambda n: MLP(n, dim, dim, self.net_arch, self.activation))

    def make_critic(self, features_extractor: BaseFeaturesExtractor | None = None) -> Network:
        """An ensemble of critics: its network takes features and actions. See ``make_network``."""
        return self.make_values(self.action_dim, self.n_critics, features_extractor)

    def make_values(self, n_inputs: int, n_members: int, features_extractor: BaseFeaturesExtractor | None = None) -> Network:
        """
        An ensemble of value functions, with the architecture of critics.

        :param n_inputs: Dimension of the inputs besides features: 0 for state values
        :param n_members: Number of value functions
        :param features_extractor: See ``make_network``
        :return: The network
        """
        return self.make_network(
            lambda n: EnsembleMLP(n_members, n + n_inputs, self.value_arch, self.activation, self.critic_layer_norm),
            features_extractor,
        )

    def make_target(self, network: SelfNetwork) -> SelfNetwork:
        """Create a target network: a copy of a network, without gradients, always in evaluation mode."""
        target = copy.deepcopy(network).requires_grad_(False).eval()
        self.targets.append(target)
        return target

    # Networks applied to observations.

    def features(self, network: Network, observations: TensorObs) -> th.Tensor:
        """
        :param network: Network with a features extractor
        :param observations: Batch of observations, not preprocessed
        :return: ``(B, features_dim)``
        """
        return self.extract_features(observations, network.features_extractor)

    def extract_features(self, obs: PyTorchObs, features_extractor: BaseFeaturesExtractor) -> th.Tensor:
        # As in the base class, with normalization by the statistics of the dataset.
        obs = discrete_from_zero(obs, self.observation_space)
        preprocessed = preprocess_obs(obs, self.observation_space, normalize_images=self.normalize_images)
        return features_extractor(self.normalizer(preprocessed))  # type: ignore[no-any-return]

    def velocity(self, network: Network, observations: TensorObs, copies: int = 1) -> Velocity:
        """
        The velocity field given observations. Features are computed once for all steps of an integration.

        :param network: A network from ``make_velocity``
        :param observations: Batch of observations, not preprocessed
        :param copies: Number of points per observation; the points of the first copy come first
        :return: ``(x, t) -> v``, of shapes ``(copies * B, action_dim), (copies * B, 1) -> (copies * B, action_dim)``
        """
        context = network.net.context(self.features(network, observations))  # type: ignore[operator]
        return self.guide(partial(network.net, context.repeat(copies, 1) if copies > 1 else context))

    def guide(self, velocity: Velocity) -> Velocity:
        """Guide a velocity field toward ``known_actions``, if there are any."""
        return velocity if self.known_actions is None else guided(velocity, *self.known_actions)

    def one_step(self, network: Network, observations: TensorObs, noise: th.Tensor) -> th.Tensor:
        """
        :param network: A network from ``make_one_step_actor``
        :param observations: Batch of observations, not preprocessed
        :param noise: ``(B, action_dim)``
        :return: Actions, not clipped, ``(B, action_dim)``
        """
        return network.net(network.net.context(self.features(network, observations)), noise)  # type: ignore[no-any-return,operator]

    def q_values(
        self, network: Network, observations: TensorObs, actions: th.Tensor, frozen: bool = False, copies: int = 1
    ) -> th.Tensor:
        """
        :param network: A network from ``make_critic``
        :param observations: Batch of observations, not preprocessed
        :param actions: ``(copies * B, action_dim)``; those of the first copy come first
        :param frozen: Whether only the actions get gradients, not the critics
        :param copies: Number of actions per observation; features are computed once
        :return: Q-values, ``(n_critics, copies * B)``
        """
        if frozen:
            with th.no_grad():
                features = self.features(network, observations)
        else:
            features = self.features(network, observations)
        if copies > 1:
            features = features.repeat(*[1] * (features.ndim - 2), copies, 1)
        inputs = th.cat([features, actions.expand(*features.shape[:-1], -1)], dim=-1)
        return network.net(inputs, frozen=frozen)  # type: ignore[no-any-return]

    # Acting.

    def act(self, observations: TensorObs, noise: th.Tensor) -> th.Tensor:
        """
        Get actions of the current sampler.

        :param observations: Batch of observations, not preprocessed
        :param noise: ``(B, noise_dim)``, standard normal
        :return: Actions in [-1, 1], ``(B, action_dim)``
        """
        return getattr(self, self.samplers[self.sampler])(observations, noise)  # type: ignore[no-any-return]

    def with_sampler(self: SelfPolicy, sampler: str, best_of_n: int = 1) -> SelfPolicy:
        """
        Get the policy with another sampler. Both share their networks.

        :param sampler: A name in ``samplers``
        :param best_of_n: Number of sampled actions; the one with the highest Q-value is executed
        :return: A policy with ``predict``, for instance for ``evaluate_policy``
        :raises ValueError: If there is no such sampler; the message lists them.
        """
        if sampler not in self.samplers:
            raise ValueError(f"{type(self).__name__} has no sampler {sampler!r}; choose one of {', '.join(self.samplers)}.")
        best_of_n = checked_value("best_of_n", best_of_n, int)  # "8" and 8.0 are converted, as in constructors
        if best_of_n < 1:
            raise ValueError(f"`best_of_n` is {best_of_n}; it must be at least 1.")
        twin = copy.copy(self)
        twin.sampler, twin.best_of_n = sampler, best_of_n
        return twin

    def with_head(self: SelfPolicy, head: str, best_of_n: int = 1) -> SelfPolicy:
        """Deprecated name of ``with_sampler``."""
        warnings.warn("`with_head` is deprecated; use `with_sampler`.", DeprecationWarning, stacklevel=2)
        return self.with_sampler(head, best_of_n)

    heads = FormerName("samplers")
    head = FormerName("sampler")

    def planner(self, space: spaces.Space[Any] | None = None, steps: Sequence[Step] = ()) -> RealTimePlanner:
        """
        Get the policy as the planner of a ``ControlLoop``.

        :param space: The space of the observations before they are prepared; None: that of the policy
        :param steps: Their preparation: what SB3's wrappers do; see ``planner`` of the algorithm
        :return: The planner
        """
        return RealTimePlanner(self, space, steps)

    def exploring(self: SelfPolicy, generator: th.Generator) -> SelfPolicy:
        """
        Get the policy for collecting rollouts. Both share their networks.

        :param generator: Generator of the noise, on the policy's device
        :return: A policy with ``predict``
        """
        twin = copy.copy(self)
        twin.generator = generator
        return twin

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """
        Get actions, as SB3's policies do. With chunks (``horizon_length > 1``) the state has the rest of the chunks: pass it
        to the next call, together with ``episode_start``, to execute each chunk to its end. Without a state, each call plans a
        new chunk and returns its first action.

        :param observation: An observation, or one per environment
        :param state: State returned by the previous call, or None
        :param episode_start: Whether an episode begins, ``(n_envs,)``; a new chunk is planned there
        :param deterministic: Whether to use zero noise
        :return: Actions in the units of the environment, and the new state
        :raises ValueError: If an observation does not fit the space or is not finite, or if an action is not finite.
        """
        if isinstance(state, bool) or not isinstance(deterministic, (bool, np.bool_)):
            raise TypeError(
                f"`state` is {state!r} and `deterministic` is {deterministic!r}; write predict(observation, "
                "deterministic=True)."
            )
        self.set_training_mode(False)
        check_observation(observation, self.observation_space)
        observations, vectorized = self.obs_to_tensor(observation)
        check_parts(observations)
        check_state(state, episode_start, batch_size(observations))
        with th.no_grad():
            scaled, state = self.decide(observations, state, episode_start, deterministic)
        if not np.isfinite(scaled).all():
            raise ValueError("Actions of the policy are not finite: its parameters are invalid. Load an earlier model.")
        actions = self.unscale_action(scaled)
        return (actions if vectorized else actions[0]), state

    def decide(
        self,
        observations: TensorObs,
        state: tuple[np.ndarray, ...] | None,
        episode_start: np.ndarray | None,
        deterministic: bool,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """
        The part of ``predict`` between observations as tensors and actions in [-1, 1].

        :param observations: Batch of observations, not preprocessed
        :param state: State returned by the previous call, or None
        :param episode_start: Whether an episode begins, ``(n_envs,)``
        :param deterministic: Whether to use zero noise
        :return: Actions in [-1, 1], ``(n_envs, *action_shape)``, and the new state
        """
        assert self.action_space.shape is not None
        if self.horizon_length == 1:
            actions = self._predict(observations, deterministic).cpu().numpy()
            return actions.reshape(-1, *self.action_space.shape), state
        if state is None:
            chunks = ChunkState.start(batch_size(observations), self.n_action_steps, self.action_space.shape)
        else:
            chunks = read_state(ChunkState, state, (self.n_action_steps, *self.action_space.shape))
        used_up = chunks.used_up(episode_start)
        if used_up.any():
            rows = th.as_tensor(used_up, device=self.device)
            if isinstance(observations, dict):
                asking: TensorObs = {key: part[rows] for key, part in observations.items()}
            else:
                asking = observations[rows]
            planned = self.executed(self._predict(asking, deterministic))
            chunks = chunks.planned(used_up, planned.cpu().numpy())
        return chunks.take()

    def forward(self, observations: TensorObs, deterministic: bool = False) -> th.Tensor:
        """
        Get actions as tensors, for instance to export the policy as a module.

        :param observations: Batch of observations from ``obs_to_tensor``, on the policy's device
        :param deterministic: Whether to use zero noise
        :return: Actions in [-1, 1], ``(B, action_dim)``; of a chunk all actions, time first
        """
        return self._predict(observations, deterministic)

    @property
    def certifies(self) -> bool:
        """Whether ``plan_actions``, also in a graph, sets ``certified``: which plans are certified, ``(B,)``, bool."""
        return False

    def plan_actions(
        self, observations: TensorObs, noise: th.Tensor, last_actions: th.Tensor, episode_start: th.Tensor
    ) -> th.Tensor:
        """
        Plan the actions that are executed before the next plan.

        :param observations: Batch of observations, not preprocessed, ``(B * n_obs_steps, *shape)``; those of one history are
            adjacent, oldest first
        :param noise: Standard normal noise, ``(B, best_of_n, noise_dim)``
        :param last_actions: Last action of the previous plan, in [-1, 1], ``(B, action_dim)``. Only streaming policies use it.
        :param episode_start: Whether an episode begins, ``(B,)`` of bool. Only streaming policies use it.
        :return: Actions in [-1, 1], ``(B, n_action_steps, action_dim)``
        """
        return self.executed(self.act_best(observations, noise))

    def plan_actions_in_graph(
        self, observations: TensorObs, noise: th.Tensor, last_actions: th.Tensor, episode_start: th.Tensor
    ) -> th.Tensor:
        """As ``plan_actions``, as one graph of tensor operations: the function that is exported."""
        return self.plan_actions(observations, noise, last_actions, episode_start)

    def executed(self, chunks: th.Tensor) -> th.Tensor:
        """The actions that are executed before the next plan: ``(B, H * action_dim) -> (B, n_action_steps, action_dim)``."""
        return chunks.view(chunks.shape[0], self.prediction_horizon, -1)[:, : self.n_action_steps]

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> th.Tensor:
        return self.act_best(observation, self._noise(batch_size(observation), deterministic))

    @property
    def noise_dim(self) -> int:
        """Dimension of the noise of the current sampler."""
        return self.action_dim

    @property
    def n_noises(self) -> int:
        """Number of noise vectors of an action."""
        return self.best_of_n

    def _noise(self, n: int, deterministic: bool) -> th.Tensor:
        """The noise of ``n`` actions, ``(n, n_noises, noise_dim)``."""
        dtype = self._on_device.dtype
        if not deterministic:
            return th.randn(n, self.n_noises, self.noise_dim, dtype=dtype, device=self.device, generator=self.generator)
        return self._fixed_noise().to(self.device, dtype).expand(n, -1, -1)

    def _fixed_noise(self) -> th.Tensor:
        """The noise of ``deterministic=True``, ``(n_noises, noise_dim)``."""
        if self.n_noises == 1:
            return th.zeros(1, self.noise_dim)
        noise = th.randn(self.n_noises, self.noise_dim, generator=th.Generator().manual_seed(0))
        noise[0] = 0.0
        return noise

    def act_best(self, observations: TensorObs, noise: th.Tensor) -> th.Tensor:
        """
        Get the action with the highest score among ``best_of_n`` sampled actions.

        :param observations: Batch of observations, not preprocessed
        :param noise: ``(B, best_of_n, noise_dim)``
        :return: Actions in [-1, 1], ``(B, action_dim)``
        """
        n, best_of_n, _ = noise.shape
        if best_of_n == 1:
            return self.act(observations, noise[:, 0])
        if isinstance(observations, dict):
            repeated: TensorObs = {key: part.repeat_interleave(best_of_n, dim=0) for key, part in observations.items()}
        else:
            repeated = observations.repeat_interleave(best_of_n, dim=0)
        actions = self.act(repeated, noise.flatten(end_dim=1))
        best = self.score(repeated, actions).view(n, best_of_n).argmax(dim=1)
        return actions.view(n, best_of_n, -1)[th.arange(n, device=self.device), best]

    def score(self, observations: TensorObs, actions: th.Tensor) -> th.Tensor:
        """
        The score of ``best_of_n``: the mean of the critics.

        :param observations: Batch of observations, not preprocessed
        :param actions: In [-1, 1], ``(B, action_dim)``
        :return: ``(B,)``
        """
        return self.q_values(self.critic, observations, actions).mean(dim=0)

    def scale_action(self, action: np.ndarray) -> np.ndarray:
        # As in the base class, in double precision: the width of a space can overflow the type of its bounds.
        low, high = (bound.astype(np.float64) for bound in (self.action_space.low, self.action_space.high))
        scaled: np.ndarray = (2.0 * (action - low) / (high - low) - 1.0).astype(np.float32)
        return scaled

    def unscale_action(self, scaled_action: np.ndarray) -> np.ndarray:
        low, high = (bound.astype(np.float64) for bound in (self.action_space.low, self.action_space.high))
        actions: np.ndarray = low + 0.5 * (scaled_action + 1.0) * (high - low)
        if self.action_space.dtype.kind in "iu":
            actions = np.rint(actions)
        # Rounding can leave the space at its bounds, for instance for 1 in [-0.7, 0.4]. Actions outside stay there.
        actions = np.where(np.abs(scaled_action) <= 1.0, np.clip(actions, low, high), actions)
        return actions.astype(self.action_space.dtype)

    @property
    def device(self) -> th.device:
        """Device of the policy."""
        return self._on_device.device

    def set_training_mode(self, mode: bool) -> None:
        # Visiting all modules takes longer than `predict`. Policies with other samplers share the networks, so the flag of a
        # network is checked as well as that of the policy.
        if self.normalizer.training != mode or self.training != mode:
            super().set_training_mode(mode)
            for target in self.targets:
                target.eval()

    # Saving.

    def save(self, path: Any) -> None:
        """
        Save the policy alone: parameters as tensors, arguments as plain data.

        :param path: A path, or an open file
        """
        arguments = self._get_constructor_parameters()
        del arguments["lr_schedule"]  # the algorithm has the real one
        settings = pack_settings(arguments, (), f"{type(self).__name__}.load(..., trusted=True)")
        content = {"state_dict": self.state_dict(), "data": json.dumps(settings, allow_nan=False)}
        with atomic_write(path) if is_path(path) else nullcontext(path) as file, deferred_interrupts():
            th.save(content, file)

    @classmethod
    def load(cls: type[SelfPolicy], path: Any, device: th.device | str = "auto", *, trusted: bool = False) -> SelfPolicy:
        """
        Load what ``save`` saved.

        :param path: A path, or an open file
        :param device: ``"cpu"``, ``"cuda"`` or ``"auto"``
        :param trusted: Whether pickles in the file, as version 0.1 wrote them, are read, which runs any code that they contain
        :return: The policy
        :raises ValueError: If the file has pickles that are not trusted, is damaged, or is of another policy.
        """
        check_device(device)
        device = get_device(device)
        saved, arguments = read_policy(path, device, trusted)
        with load_errors(cls, path):
            policy = cls(**{"lr_schedule": cls._dummy_schedule, **arguments})
            policy.load_state_dict(saved)
        return policy.to(device)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return dict(
            observation_space=self.observation_space,
            action_space=self.action_space,
            lr_schedule=self._dummy_schedule,  # the algorithm has the schedule
            net_arch={"pi": self.net_arch, "qf": self.value_arch},
            activation=self.activation,
            critic_layer_norm=self.critic_layer_norm,
            n_critics=self.n_critics,
            horizon_length=self.horizon_length,
            n_action_steps=self.n_action_steps,
            best_of_n=self.best_of_n,
            sampler=self.sampler,
            features_extractor_class=self.features_extractor_class,
            features_extractor_kwargs=self.features_extractor_kwargs,
            normalize_images=self.normalize_images,
            optimizer_class=self.optimizer_class,
            optimizer_kwargs=self.optimizer_kwargs,
            **self.method_kwargs,
        )
