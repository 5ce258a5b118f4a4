"""Base class of flow algorithms. An update takes a batch and noise, performs an optimizer step, and returns metrics."""

import io
import math
import pathlib
from collections.abc import Iterable
from typing import Any, ClassVar, NamedTuple, TypeVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from stable_baselines3.common.utils import configure_logger
from stable_baselines3.common.vec_env import VecNormalize
from torch import nn

from sb3_flow.common.arguments import CheckedArguments, as_policy_kwargs, checked, checked_value
from sb3_flow.common.checkpoints.random_state import seed_from
from sb3_flow.common.checkpoints.saving import check_optimizer, load_errors
from sb3_flow.common.data.batches import CROP_PAD, normalize, shift_images
from sb3_flow.common.data.dataset import OfflineDataset
from sb3_flow.common.data.statistics import observation_statistics
from sb3_flow.common.effects import warn_unused
from sb3_flow.common.encoders import image_keys
from sb3_flow.common.execution import Execution, Loss, make_execution
from sb3_flow.common.export import export_policy
from sb3_flow.common.guards import not_finite
from sb3_flow.common.metrics import MetricSums
from sb3_flow.common.observation_wrappers import before_wrappers, preparation
from sb3_flow.common.offline_algorithm import OfflineAlgorithm
from sb3_flow.common.policies import FlowPolicy
from sb3_flow.common.real_time import RealTimePlanner
from sb3_flow.common.type_aliases import Batch, Metrics
from sb3_flow.common.warn import warn

SelfFlow = TypeVar("SelfFlow", bound="FlowAlgorithm")


class FlowAlgorithm(OfflineAlgorithm):
    """
    Base class of flow algorithms. Algorithms that train only on a dataset inherit from it directly. A subclass defines
    ``draw_noise``, ``loss`` and its policy.

    :param policy: ``"FlowPolicy"`` (or a policy class); its features extractor depends on the observation space.
    :param env: Environment, or its id. None: the spaces are taken from the dataset; call ``set_env`` before evaluation.
    :param learning_rate: Learning rate of the optimizer, or a function of the remaining progress (from 1 to 0)
    :param batch_size: Transitions per update
    :param max_grad_norm: Maximum norm of the gradients of all networks together; None: no clipping
    :param dataset: Dataset: a name (``"cube-single-play-v0"``, ``"ogbench:..."``, ``"minari:..."``), the path of a
        ``.npz`` or ``.hdf5`` file, a ``minari.MinariDataset``, a dictionary of arrays or a replay buffer
    :param dataset_on_device: Whether the dataset is stored on the device, so that batches are drawn there. It must fit.
    :param normalize_observations: Whether to normalize vector observations by the mean and standard deviation of the dataset.
        The statistics are saved with the policy.
    :param crop_probability: Probability of augmenting a batch of images by random crops
    :param offline_log_interval: Number of offline updates between two log entries
    :param policy_kwargs: Arguments of the policy
    :param stats_window_size: Number of episodes over which logged returns and lengths are averaged
    :param tensorboard_log: Folder of the TensorBoard log
    :param verbose: 0: no output, 1: information, 2: debug messages
    :param seed: Seed of all random generators
    :param compile: How updates are executed: False (operator by operator), True (``torch.compile`` of the losses) or
        ``"cudagraph"`` (the whole update as one CUDA graph). The numbers are the same up to rounding; see docs/speed.md.
    :param device: ``"cpu"``, ``"cuda"`` or ``"auto"``
    :param _init_setup_model: Whether to create the networks in the constructor
    :param kwargs: Arguments of the next base class
    """

    policy: FlowPolicy
    policy_class: type[FlowPolicy]
    generator: th.Generator
    host_generator: th.Generator
    #: Rate of the target networks
    tau: float

    #: Whether all updates have the same operations, so that one CUDA graph can replay them.
    one_graph: ClassVar[bool] = True
    #: Names of the target networks of the policy, each with the network that it follows.
    targets: ClassVar[dict[str, str]] = {}

    def __init__(
        self,
        policy: str | type[FlowPolicy],
        env: GymEnv | str | None = None,
        learning_rate: float | Schedule = 3e-4,
        *,
        batch_size: int = 256,
        max_grad_norm: float | None = None,
        dataset: Any = None,
        dataset_on_device: bool = False,
        normalize_observations: bool = False,
        crop_probability: float = 0.5,
        offline_log_interval: int = 1_000,
        policy_kwargs: dict[str, Any] | None = None,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        verbose: int = 0,
        seed: int | None = None,
        compile: bool | str = False,
        device: th.device | str = "auto",
        _init_setup_model: bool = True,
        **kwargs: Any,
    ) -> None:
        if max_grad_norm is not None and not max_grad_norm > 0:
            raise ValueError(f"`max_grad_norm` is {max_grad_norm}; it must be above 0, or None for no clipping.")
        if env is None and dataset is None and _init_setup_model:
            raise ValueError("There is neither an environment nor a dataset: pass `env`, `dataset`, or both.")
        if normalize_observations and dataset is None and _init_setup_model:
            raise ValueError("`normalize_observations` takes its statistics from a `dataset`; online, use VecNormalize.")
        super().__init__(
            policy,
            env,
            learning_rate,
            dataset=dataset,
            offline_log_interval=offline_log_interval,
            policy_kwargs=as_policy_kwargs(policy_kwargs),
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            verbose=verbose,
            seed=seed,
            device=device,
            supported_action_spaces=(spaces.Box,),
            support_multi_env=True,
            **kwargs,
        )
        if policy == "CnnPolicy" and env is not None:
            self._require_images()
        make_execution(compile, self.device, self.one_graph)  # raises now what it would raise later
        self.compile = compile
        self.batch_size = batch_size
        self.dataset_on_device = dataset_on_device
        self.max_grad_norm = max_grad_norm
        self.normalize_observations = normalize_observations
        self.crop_probability = crop_probability
        self._metrics = MetricSums()
        self._execution: Execution | None = None
        #: Settings of the sampler when the model was saved.
        self.acting: dict[str, Any] = {}
        #: For an export without the environment: its observation space without wrappers, and whether one normalized.
        self.raw_observation_space: spaces.Space[Any] | None = None
        self.observations_normalized = False
        if _init_setup_model:
            self._setup_model()
            without_effect = getattr(self.policy_class, "without_effect", ())
            unused = (name for name in self.policy_kwargs if name in without_effect)
            warn_unused(unused, self.policy_class, "not used by this policy")
            if dataset is not None:
                self.set_dataset(dataset)

    def _require_images(self) -> None:
        """``CnnPolicy`` means a convolution, as in Stable-Baselines3."""
        if not image_keys(self.observation_space, not self.policy_kwargs.get("normalize_images", True)):
            raise ValueError(
                f"`CnnPolicy` needs images, and the observation space is {self.observation_space}. Images are bytes from 0 to "
                "255 with three axes, one of them channels (gymnasium.wrappers.ReshapeObservation adds one); floats that have "
                "been scaled already need policy_kwargs={'normalize_images': False}."
            )

    def _setup_model(self) -> None:
        self._setup_lr_schedule()
        self.set_random_seed(self.seed)
        self.seed_generators(int(th.randint(2**62, ())))
        self.generator_state = self.random_state()
        arguments = self._policy_arguments()
        for name in arguments.keys() & self.policy_kwargs.keys():
            raise TypeError(f"`{name}` in `policy_kwargs` is an argument of {type(self).__name__}: pass {name}=... to it.")
        if isinstance(self.policy_class, CheckedArguments):
            owner = f"{self.policy_class.__name__} (`policy_kwargs`)"
            self.policy_kwargs = checked(self.policy_class, self.policy_kwargs, owner)
        self.policy = self.policy_class(
            self.observation_space, self.action_space, self.lr_schedule, **arguments, **self.policy_kwargs
        ).to(self.device)

    def _policy_arguments(self) -> dict[str, Any]:
        """The arguments of the policy that are arguments of the algorithm."""
        return {}

    @property
    def execution(self) -> Execution:
        """Executes the updates. It is created on first use, so that a model can be loaded for inference on any device."""
        if self._execution is None or self._execution.mode != self.compile:
            self._execution = make_execution(self.compile, self.device, self.one_graph)
        return self._execution

    @execution.setter
    def execution(self, execution: Execution) -> None:
        self._execution = execution

    # An update.

    def draw_noise(self, n: int) -> NamedTuple:
        """
        Draw the random numbers of one update.

        :param n: Batch size
        :return: The noise that ``update`` takes
        """
        raise NotImplementedError

    def normal(self, *shape: int, dim: int | None = None) -> th.Tensor:
        """
        Draw standard normal noise from the generator of training.

        :param shape: All axes except the last
        :param dim: Size of the last axis, by default ``action_dim``
        :return: ``(*shape, dim)``
        """
        dim = self.policy.action_dim if dim is None else dim
        return th.randn((*shape, dim), generator=self.generator, device=self.device)

    def uniform(self, n: int) -> th.Tensor:
        """Draw times from the generator of training, uniform in [0, 1], ``(n, 1)``."""
        return th.rand((n, 1), generator=self.generator, device=self.device)

    def loss(self, batch: Batch, noise: Any) -> tuple[th.Tensor, Metrics]:
        """
        The loss that one optimizer step minimizes: a pure function of the parameters, the batch and the noise.

        :param batch: Batch of transitions
        :param noise: Noise from ``draw_noise``
        :return: The loss and the metrics to log (scalar tensors)
        """
        raise NotImplementedError

    def update(self, batch: Batch, noise: Any) -> Metrics:
        """
        One update: loss, gradients, optimizer step, target networks. Its random numbers are an argument, so it can be called
        outside of ``learn`` and compared with another implementation.

        :param batch: Batch of transitions
        :param noise: Noise from ``draw_noise``
        :return: Metrics to log
        """
        metrics = self.descend(self.loss, self.policy.optimizer, batch, noise)
        self.update_targets()
        return metrics

    def descend(self, loss: Loss, optimizer: th.optim.Optimizer, *inputs: Any, clip: bool = True) -> Metrics:
        """
        Compute the gradients of a loss, clip them if ``max_grad_norm`` is set, and perform an optimizer step.

        :param loss: Loss to minimize, a method of the algorithm
        :param optimizer: Optimizer of the parameters
        :param inputs: Arguments of the loss
        :param clip: Whether ``max_grad_norm`` applies to these parameters
        :return: Metrics to log
        """
        every = [p for group in optimizer.param_groups for p in group["params"]]
        parameters = [p for p in every if p.requires_grad]
        for parameter in every:
            if not parameter.requires_grad:  # it was frozen after an update, with whose gradient it would go on
                parameter.grad = None
        gradients, metrics = self.execution.differentiate(loss, parameters, *inputs)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        if clip and self.max_grad_norm is not None:
            metrics["grad_norm"] = clip_gradients(optimizer, self.max_grad_norm)
        optimizer.step()
        return metrics

    def update_targets(self, *names: str) -> None:
        """
        Update target networks: ``target <- tau net + (1 - tau) target``, with ``target_rate`` as ``tau``. Buffers of networks,
        such as the statistics of batch norm, are copied.

        :param names: Names in ``targets``; by default all
        """
        with th.no_grad():
            for target in names or self.targets:
                follower, leader = getattr(self.policy, target), getattr(self.policy, self.targets[target])
                th._foreach_lerp_(list(follower.parameters()), list(leader.parameters()), self.target_rate(target))
                copy_buffers(follower, leader)

    def target_rate(self, target: str) -> float:
        """
        Share of a network that enters its target at each update.

        :param target: Name of the target
        :return: ``tau``, unless an algorithm has several rates
        """
        return self.tau

    # Batches.

    def set_dataset(self, dataset: Any) -> None:
        super().set_dataset(dataset)
        if self.dataset_on_device and self.offline_buffer is not None:
            if self._vec_normalize_env is not None:
                raise ValueError(
                    "`VecNormalize` normalizes batches on the CPU: set `dataset_on_device=False`, or use "
                    "`normalize_observations` instead of the wrapper."
                )
            self.offline_buffer.move()

    def _set_statistics(self, data: OfflineDataset) -> None:
        if self.normalize_observations:
            if self._vec_normalize_env is not None and self._vec_normalize_env.norm_obs:
                raise ValueError("Observations would be normalized twice: use VecNormalize or `normalize_observations`.")
            statistics = observation_statistics(data, self.observation_space)
            if not statistics:
                warn(f"`normalize_observations` has no effect: {self.observation_space} has no vectors. Leave it out.")
            for key, (mean, var) in statistics.items():
                self.policy.normalizer.set_statistics(key, th.as_tensor(mean), th.as_tensor(var).sqrt())
        super()._set_statistics(data)

    def sample_batch(self, batch_size: int) -> Batch:
        """
        Draw a batch, normalize it by ``VecNormalize`` if the environment has it, and augment images.

        :param batch_size: Number of transitions, at least 1
        :return: The batch
        :raises ValueError: If there is neither a dataset nor a collected transition.
        """
        batch_size = checked_value("batch_size", batch_size, int)
        if self.offline_buffer is None and self.dataset is not None:  # after `load`
            self.set_dataset(self.dataset)
        batch = normalize(self.draw_batch(batch_size), self._vec_normalize_env)
        return self.augment_images(batch) if image_keys(self.observation_space) else batch

    def draw_batch(self, batch_size: int) -> Batch:
        """
        Draw a batch from the dataset.

        :param batch_size: Number of transitions
        :return: The batch; rewards are normalized by ``VecNormalize``, observations are neither normalized nor augmented
        """
        if self.offline_buffer is None:
            raise ValueError("There is no dataset to train on: pass `dataset`, or call `set_dataset`.")
        indices = self.offline_buffer.draw_indices(batch_size, self.host_generator)
        return self.draw_from(self.offline_buffer, indices)

    def draw_from(self, buffer: Any, indices: th.Tensor) -> Batch:
        """
        Get a batch of given transitions.

        :param buffer: Buffer of the transitions
        :param indices: Indices of the transitions, ``(B,)``
        :return: The batch; rewards are normalized by ``VecNormalize``, observations are neither normalized nor augmented
        """
        return buffer.draw(indices, env=self._vec_normalize_env)  # type: ignore[no-any-return]

    def augment_images(self, batch: Batch) -> Batch:
        """Shift images at random, with ``crop_probability``. Observation and next observation are shifted alike."""
        if th.rand((), generator=self.host_generator) >= self.crop_probability:
            return batch
        offsets = self.crop_offsets(len(batch.actions), CROP_PAD)
        return shift_images(batch, self.observation_space, offsets, offsets, CROP_PAD)

    def crop_offsets(self, n: int, pad: int) -> th.Tensor:
        """Draw the corners of ``n`` random crops for ``random_crop``, ``(n, 2)`` of int64 in [0, 2 pad]."""
        return th.randint(2 * pad + 1, (n, 2), generator=self.generator, device=self.device)

    # Training.

    def train(self, gradient_steps: int, batch_size: int) -> None:
        """
        Draw batches and perform updates.

        :param gradient_steps: Number of updates
        :param batch_size: Transitions per update
        :raises ValueError: If a loss or the learning rate is not finite.
        """
        if gradient_steps < 0:
            raise ValueError(f"`gradient_steps` is {gradient_steps}; `train` needs a number from 0.")
        self.policy.set_training_mode(True)
        if not hasattr(self, "_logger"):  # called before `learn`
            self._logger = configure_logger(self.verbose)
        rate = self.lr_schedule(self._current_progress_remaining)
        if not 0 <= rate < math.inf:
            raise ValueError(f"`learning_rate` has become {rate}; its function must return finite numbers of at least 0.")
        self._update_learning_rate(self.policy.optimizers)
        for _ in range(gradient_steps):
            batch = self.sample_batch(batch_size)
            self._metrics.add(*self.execution.step(self, batch))
        self._n_updates += gradient_steps
        if self._metrics.unchecked >= self.check_interval:
            self.check_finite(batch)

    @property
    def check_interval(self) -> int:
        """Number of updates between two checks of the losses. On a CPU checks are cheap; on a GPU they synchronize."""
        return 1 if self.device.type == "cpu" else 100

    def check_finite(self, batch: Batch | None = None) -> None:
        """
        Check the losses of the updates since the last check. ``predict``, ``save`` and the logger call this first.

        :param batch: The batch of the last update, for the message
        :raises ValueError: If a loss was not finite. (RL Zoo prunes a trial that raises this.)
        """
        count, last = self._metrics.unchecked, self._n_updates
        lost = self._metrics.not_finite() if count > 0 else []
        if lost:
            where = f"Update {last}" if count == 1 else f"One of the updates {last - count + 1} to {last}"
            raise ValueError(
                f"{where} is not finite ({', '.join(lost)}). The parameters are invalid from there on. Go back to the "
                f"last checkpoint, {self._remedy(batch)}"
            )

    def _remedy(self, batch: Batch | None) -> str:
        """What to change after a loss that is not finite: the data, if an input was not finite."""
        inputs = {} if batch is None else batch._asdict()
        found = {f"`{name}` of the batch": value for name, part in inputs.items() if (value := not_finite(part)) is not None}
        lost = [f"{name} has the value {value}" for name, value in found.items()]
        lost += [f"the {name} is not finite" for name in self.inputs_not_finite()]
        if lost:
            return f"and correct the data: {', and '.join(lost)}."
        finite = " All values of the batch were finite." if inputs else ""
        return f"with a lower learning rate or other data.{finite}"

    def _record_training(self) -> None:
        self.check_finite()
        for name, value in self._metrics.means().items():  # averages over the updates since the last log entry
            self.logger.record(f"train/{name}", value)
        super()._record_training()

    def _run_phases(self, *args: Any) -> None:
        super()._run_phases(*args)
        self.check_finite()

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """Call ``policy.predict`` after checking that the last updates were finite."""
        self.check_finite()
        return super().predict(observation, state, episode_start, deterministic)

    def export(self, path: str | pathlib.Path, sampler: str | None = None, real_time: bool = False) -> None:
        """
        Write the policy to an ONNX file, with normalization, image layout and scaling of actions.
        ``sb3_flow.deploy.OnnxPolicy`` runs it without PyTorch. Needs the extra ``export``. The statistics of ``VecNormalize``
        are those of the model's environment; there is a warning if the model was trained with it and is loaded without.

        :param path: The file; ``.onnx`` is added if it has no suffix
        :param sampler: Name of the sampler, see ``policy.samplers``; None: the current one, with its ``best_of_n``
        :param real_time: Whether the file plans whole chunks, conditioned on known actions, for ``deploy.ControlLoop``
        :raises ImportError: If the extra is not installed.
        :raises ValueError: If there is no such sampler, the policy cannot be exported, or the last updates were not finite.
        """
        self.check_finite()
        policy = self.policy if sampler is None else self.policy.with_sampler(sampler)
        self.warn_of_missing_statistics("exported policy", "export")
        export_policy(policy, self.env, type(self).__name__, path, real_time, self.raw_observation_space)

    def planner(self, sampler: str | None = None) -> RealTimePlanner:
        """
        Get the model as the planner of a ``deploy.ControlLoop``. It takes observations as the environment returns them,
        without ``VecNormalize`` and the other wrappers of SB3, as an exported policy does.

        :param sampler: Name of the sampler, see ``policy.samplers``; None: the current one, with its ``best_of_n``
        :return: The planner
        :raises ValueError: If there is no such sampler, or the last updates were not finite.
        """
        self.check_finite()
        policy = self.policy if sampler is None else self.policy.with_sampler(sampler)
        self.warn_of_missing_statistics("control loop", "control loop")
        return policy.planner(*preparation(policy.observation_space, self.env, self.raw_observation_space))

    def warn_of_missing_statistics(self, what: str, before: str) -> None:
        """Warn if observations were normalized by ``VecNormalize``, and its statistics are missing."""
        if self.env is None and self.observations_normalized:
            warn(
                f"The model was trained with `VecNormalize`, and has no environment now. The {what} expects normalized "
                f"observations. Set the environment with its statistics before the {before}: `load(path, env=...)`."
            )

    # Random streams.

    def set_random_seed(self, seed: int | None = None) -> None:
        """
        Seed all random generators, including those of training.

        :param seed: The seed; None: no change
        """
        super().set_random_seed(seed)
        if seed is not None and hasattr(self, "generator"):  # `_setup_model` seeds them for the first time
            self.seed_generators(int(th.randint(2**62, (), generator=th.Generator().manual_seed(seed))))

    def seed_generators(self, seed: int) -> None:
        """
        Seed the generators of training. They are not PyTorch's global generator, so evaluations do not change training.

        :param seed: The seed
        """
        if not hasattr(self, "generator"):  # later calls seed them in place, because a captured graph uses them
            self.generator = th.Generator(self.device)
            # Indices of batches are drawn on the CPU, without waiting for the GPU.
            self.host_generator = self.generator if self.device.type == "cpu" else th.Generator()
        for generator in self._generators():
            generator.manual_seed(seed)

    def random_state(self) -> th.Tensor:
        """The state of the generators of training."""
        return th.cat([generator.get_state() for generator in self._generators()])

    def set_random_state(self, state: th.Tensor) -> None:
        """
        Set the state of the generators of training. The state of another type of device is ignored.

        :param state: A state from ``random_state``
        """
        sizes = [len(generator.get_state()) for generator in self._generators()]
        if len(state) == sum(sizes):
            for generator, part in zip(self._generators(), th.split(state.cpu(), sizes), strict=True):
                generator.set_state(part.clone())

    def _generators(self) -> list[th.Generator]:
        return [self.generator] if self.generator is self.host_generator else [self.generator, self.host_generator]

    # Saving.

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "generator", "host_generator", "_metrics", "_execution"]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        optimizers = [name for name, value in vars(self.policy).items() if isinstance(value, th.optim.Optimizer)]
        return ["policy", *(f"policy.{name}" for name in optimizers)], ["generator_state"]

    def save(
        self,
        path: str | pathlib.Path | io.BufferedIOBase,
        exclude: Iterable[str] | None = None,
        include: Iterable[str] | None = None,
    ) -> None:
        self.check_finite()
        self.check_parameters()
        self.generator_state = self.random_state()
        self.acting = {"sampler": self.policy.sampler, "best_of_n": self.policy.best_of_n}
        if self.env is not None:
            self.raw_observation_space, steps = before_wrappers(self.env)
            self.observations_normalized = any(isinstance(step, VecNormalize) and step.norm_obs for step in steps)
        super().save(path, exclude, include)

    @classmethod
    def load(cls: type[SelfFlow], path: Any, env: GymEnv | None = None, *args: Any, **kwargs: Any) -> SelfFlow:
        model = super().load(path, env, *args, **kwargs)
        with load_errors(cls, path):
            if kwargs.get("seed") is None:  # go on where the saved model was
                model.set_random_state(model.generator_state)
            for name, value in model.acting.items():
                if name not in ("sampler", "best_of_n"):
                    raise ValueError(f"It has a setting of the sampler {name!r}, which is not known.")
                setattr(model.policy, name, value)
            model.policy.with_sampler(model.policy.sampler, model.policy.best_of_n)  # raises if it is not valid
            for name, value in vars(model.policy).items():
                if isinstance(value, th.optim.Optimizer):
                    check_optimizer(value, name)
        return model

    def check_next_update(self) -> None:
        super().check_next_update()
        if self._n_updates == 0:
            return
        random_state = self.random_state()
        self.policy.set_training_mode(False)
        batch = self.sample_batch(self.batch_size)
        loss, _ = self.loss(batch, self.draw_noise(self.batch_size))
        self.set_random_state(random_state)
        if not bool(th.isfinite(loss)):
            raise ValueError(
                f"The loss after update {self._n_updates} is {loss.item()}, so no checkpoint is written. Go back to the last "
                f"one, {self._remedy(batch)}"
            )

    def restart_seed(self) -> int:
        return seed_from(self.host_generator)


def total(*terms: tuple[th.Tensor, Metrics]) -> tuple[th.Tensor, Metrics]:
    """
    Several losses as one.

    :param terms: Each loss, and what it logs
    :return: Their sum, and all that they log
    """
    losses, metrics = zip(*terms, strict=True)
    return sum(losses[1:], losses[0]), {name: value for part in metrics for name, value in part.items()}


def copy_buffers(follower: nn.Module, leader: nn.Module) -> None:
    """
    Copy all buffers, such as the running statistics of batch norm.

    :param follower: The network that they are copied to
    :param leader: A network of the same architecture
    """
    for own, buffer in zip(follower.buffers(), leader.buffers(), strict=True):
        own.copy_(buffer)


def clip_gradients(optimizer: th.optim.Optimizer, max_norm: float) -> th.Tensor:
    """
    Scale the gradients of all parameters of an optimizer by one factor, so that their norm together is at most so much.
    Unlike PyTorch's own function it adds nothing to the norm, and a gradient below the limit stays as it is.

    :param optimizer: The optimizer, whose gradients are changed in place
    :param max_norm: The limit, above 0
    :return: The norm before
    """
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    if not gradients:  # all parameters are frozen
        return th.zeros(())
    norm: th.Tensor = th.linalg.vector_norm(th.stack(th._foreach_norm(gradients)))
    th._foreach_mul_(gradients, max_norm / norm.clamp(min=max_norm))
    return norm
