"""A control loop that keeps time: it plans in a second thread while planned actions are executed. Needs numpy only."""

from __future__ import annotations

import copy
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from math import ceil
from typing import Any, Protocol

import numpy as np

from sb3_flow.deploy.onnx_policy import OnnxPolicy


class Planner(Protocol):
    """
    What plans for a ``ControlLoop``. ``planner_of`` makes one of a policy.

    Its attributes: the number of actions of a plan, the number of actions after which a new plan is started, the number of
    observations in a history, the shape of actions, and whether plans are conditioned on known actions by default. A planner
    that certifies its plans also has ``certified``: whether the last plan is certified to be safe.
    """

    prediction_horizon: int
    n_action_steps: int
    n_obs_steps: int
    action_shape: tuple[int, ...]
    conditions_plans: bool

    def check(self, observation: Any) -> None:
        """
        :raises ValueError: If an observation is not that of the policy.
        """

    def plan(
        self, history: list[Any], previous: np.ndarray | None, known: np.ndarray, weights: np.ndarray, deterministic: bool
    ) -> Iterable[np.ndarray]:
        """
        Plan the next actions. It is called in another thread.

        :param history: The last ``n_obs_steps`` observations, oldest first
        :param previous: The last executed action; None at the start of an episode
        :param known: Actions of the previous plan for the same steps, zero where it has none,
            ``(prediction_horizon, *action_shape)``
        :param weights: How much the new plan should follow each of them, ``(prediction_horizon,)`` in [0, 1]. 1: the action
            will have been executed.
        :param deterministic: As for ``predict``
        :return: ``prediction_horizon`` actions, in the units of the environment; each is executed as soon as it is needed and
            there, so that they may be yielded one by one
        """


def soft_mask(n_frozen: int, n_known: int, horizon: int) -> np.ndarray:
    """
    Weights of the actions of the previous plan (Black et al., 2025, equation 5): 1 for those that will have been executed when
    the next plan is ready, then decaying to 0.

    :param n_frozen: Number of actions that will have been executed
    :param n_known: Number of remaining actions of the previous plan
    :param horizon: Number of actions of the next plan
    :return: ``(horizon,)``
    """
    steps = np.arange(horizon)
    share = np.clip((n_known - steps) / (n_known - n_frozen + 1), 0.0, 1.0)
    decay = share * np.expm1(share) / np.expm1(1.0)
    return np.where(steps < n_frozen, 1.0, decay).astype(np.float32)


class OnnxPlanner:
    """
    An exported policy as a planner. If the file was written with ``real_time=True``, plans are whole chunks, and conditioned.

    :param policy: The policy
    """

    def __init__(self, policy: OnnxPolicy) -> None:
        self.policy, spec = policy, policy.spec
        self.n_action_steps, self.n_obs_steps = spec["n_action_steps"], spec["n_obs_steps"]
        self.prediction_horizon = spec["horizon_length"] if spec.get("real_time") else self.n_action_steps
        self.action_shape, self.conditions_plans = tuple(spec["action"]["shape"]), spec.get("conditions_plans", False)
        self.can_be_conditioned = "known_actions" in policy.names
        further = [output.name for output in policy.session.get_outputs()[2:]]
        self.certificate = further.index("certified") if "certified" in further else None
        if self.certificate is not None:
            self.certified = False

    def check(self, observation: Any) -> None:
        if not self.policy.check(observation)[1]:
            raise ValueError("The observation is a batch; a control loop takes the observation of one robot.")

    def plan(
        self, history: list[Any], previous: np.ndarray | None, known: np.ndarray, weights: np.ndarray, deterministic: bool
    ) -> np.ndarray:
        parts = [self.policy.check(each)[0] for each in history]
        frames = {key: np.stack([part[key] for part in parts], axis=1) for key in parts[0]}
        inputs = frames if self.n_obs_steps > 1 else parts[0]
        last = np.zeros(self.action_shape) if previous is None else previous
        inputs |= {"last_actions": self.scaled(last[None])[0], "episode_start": np.array([previous is None])}
        inputs |= {"known_actions": self.scaled(known), "weights": weights[None]}
        actions: np.ndarray = self.policy.plan(inputs, deterministic)[0][0]
        if self.certificate is not None:
            self.certified = bool(self.policy.further[self.certificate][0])
        return actions

    def scaled(self, actions: np.ndarray) -> np.ndarray:
        """Scale actions to [-1, 1]: ``(n, *action_shape) -> (1, n, action_dim)``."""
        low, high = (np.array(self.policy.spec["action"][bound], np.float64) for bound in ("low", "high"))
        scaled = 2.0 * (actions - low) / (high - low) - 1.0
        return scaled.astype(np.float32).reshape(1, len(actions), -1)


def planner_of(policy: Any) -> Planner:
    """
    :param policy: A model or policy of this package, an ``OnnxPolicy``, or a ``Planner``
    :return: Its planner
    :raises TypeError: If it is something else.
    """
    if isinstance(policy, OnnxPolicy):
        return OnnxPlanner(policy)
    if hasattr(policy, "planner"):
        return policy.planner()  # type: ignore[no-any-return]
    if not all(hasattr(policy, name) for name in ("check", "plan", *Planner.__annotations__)):
        raise TypeError(
            f"{type(policy).__name__} cannot plan; expected a model or policy of sb3_flow, an `OnnxPolicy`, or an object with "
            "the attributes and methods of `Planner`."
        )
    return policy  # type: ignore[no-any-return]


@dataclass
class Plan:
    """
    A plan, whose actions are appended by the planning thread.

    :param start: Number of planned actions that had been executed when its observation was read
    :param step: The control step of its observation
    :param actions: Its actions so far, in the units of the environment
    :param future: The call of the planner; None if it was simulated
    :param certified: Whether it is certified to be safe; None: the planner has no certificates
    """

    start: int
    step: int
    actions: list[np.ndarray] = field(default_factory=list)
    future: Future[None] | None = None
    certified: bool | None = None


class ControlLoop:
    """
    Real-time chunking (Black, Galliker and Levine, 2025, https://arxiv.org/abs/2506.07339): while a plan is executed, a second
    thread makes the next one.

    A plan starts after ``n_action_steps`` actions of the plan before it, from the observation of that step. When it is ready,
    ``d`` of its actions belong to the past: they are skipped. Plans of flow samplers are conditioned on the actions that will
    have been executed by then, as predicted by the longest of the last ten delays, and, with decaying weights, on the other
    actions of the previous plan. Plans of streaming policies are conditioned on request: the integration then continues at
    the last action that will have been executed. Other samplers cannot be conditioned.

    If no planned action is left, the loop waits for half a period, then hands out ``hold(previous)``, with a plan's actions
    postponed, until one is there. It is a context manager; leaving it waits for the planner.

    Plans of FlowOpt can fail to be certified. They are executed with a warning, or refused with ``only_certified=True``.
    ``certified`` tells for each action whether its plan is certified.

    :param policy: A model or policy of this package, an ``OnnxPolicy``, or a ``Planner``
    :param frequency: Actions per second
    :param n_action_steps: Number of actions after which a new plan is started; None: that of the policy. If delays are long,
        it is started earlier.
    :param deterministic: As for ``predict``
    :param condition: Whether plans are conditioned on known actions; None: those of flows are, those of streaming policies not
    :param hold: From the last action to one that keeps the robot where it is. None: the last action itself, which is right for
        target positions, but not for velocities or displacements.
    :param max_late: Number of consecutive steps without a planned action after which an error is raised
    :param only_certified: Whether to refuse plans that are not certified, as if they were late. It needs ``hold``, because a
        certificate does not hold for the same action in the next step.
    :param latency: Simulate, without a thread and a clock: each plan but the first is available after this number of control
        steps. None: do not simulate.
    :raises TypeError: If the policy cannot plan, or an argument has another type.
    :raises ValueError: If an argument is out of its range, or certificates are required of a planner that has none.
    """

    def __init__(
        self,
        policy: Any,
        frequency: float = 50.0,
        *,
        n_action_steps: int | None = None,
        deterministic: bool = False,
        condition: bool | None = None,
        hold: Callable[[np.ndarray], np.ndarray] | None = None,
        max_late: int = 10,
        only_certified: bool = False,
        latency: int | None = None,
    ) -> None:
        self.planner = planner_of(policy)
        self.horizon = self.planner.prediction_horizon
        self.n_action_steps = self.planner.n_action_steps if n_action_steps is None else n_action_steps
        for name, value, least, most in (
            ("frequency", frequency, 1e-6, 1e6),
            ("n_action_steps", self.n_action_steps, 1, self.horizon),
            ("max_late", max_late, 0, float("inf")),
            ("latency", latency or 0, 0, float("inf")),
        ):
            if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
                raise TypeError(f"`{name}` is {value!r}; it must be a number.")
            if not least <= value <= most or (name != "frequency" and value != most and value % 1):
                kind = "" if name == "frequency" else "a whole number "
                raise ValueError(f"`{name}` is {value}; it must be {kind}from {least} to {most}.")
        if hold is not None and not callable(hold):
            raise TypeError(f"`hold` is {hold!r}; it must be a function of the last action, such as numpy.zeros_like.")
        if only_certified and not hasattr(self.planner, "certified"):
            raise ValueError(
                "`only_certified=True` needs plans with a certificate, but this policy has none: use FlowOpt with its sampler "
                "'filter'."
            )
        if only_certified and hold is None:
            raise ValueError(
                "`only_certified=True` needs `hold`, a function from the last action to one that is safe: if a plan is "
                "refused, the last action would be repeated, which is not certified."
            )
        self.only_certified = only_certified
        self.period, self.deterministic = 1.0 / frequency, deterministic
        if condition and not getattr(self.planner, "can_be_conditioned", True):
            message = (
                "`condition=True` has no effect: plans of this sampler cannot be conditioned. Choose the sampler of a flow. "
                "An exported policy also needs `export(..., real_time=True)`."
            )
            warnings.warn(message, stacklevel=2)
        self.condition = self.planner.conditions_plans if condition is None else condition
        self.hold, self.max_late, self.latency = hold or (lambda previous: previous), max_late, latency
        #: The last delays of plans, in control steps.
        self.delays: deque[int] = deque([] if latency is None else [latency], maxlen=10)
        #: Numbers of steps without a planned action, and of periods that were too long because of the caller.
        self.n_late = self.n_overrun = 0
        #: Numbers of plans that were ready, and of those among them that are not certified.
        self.n_plans = self.n_uncertified = 0
        self.pool = ThreadPoolExecutor(1, "planner") if latency is None else None
        self.closed = False
        self.reset()

    def reset(self) -> None:
        """Start an episode: forget all plans and observations."""
        self.history: deque[Any] = deque(maxlen=self.planner.n_obs_steps)
        self.current: Plan | None = None
        self.pending: Plan | None = None
        self.previous: np.ndarray | None = None
        #: Numbers of control steps, of executed planned actions, and of consecutive steps without one.
        self.step = self.executed = self.late = 0
        #: Whether the last action belongs to a certified plan; False if it was held, None: the planner has no certificates.
        self.certified: bool | None = None
        #: Number of refused plans since the last planned action.
        self.refused = 0

    def __enter__(self) -> ControlLoop:
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()

    def close(self) -> None:
        """Stop planning, and warn if several plans were not certified; the first one was reported when it was ready."""
        if self.n_uncertified > 1 and not self.closed:
            done = "refused" if self.only_certified else "executed"
            warnings.warn(f"{self.n_uncertified} of {self.n_plans} plans were not certified. They were {done}.", stacklevel=2)
        self.closed = True
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)

    def actions(self, observe: Callable[[], Any]) -> Iterator[np.ndarray]:
        """
        Hand out actions at the loop's frequency, without end. The clock starts when the first plan of an episode is ready. If
        the caller takes longer than a period, the following actions are later, not faster.

        :param observe: Reads an observation; called once per period, in the caller's thread, just before the action
        :return: Actions in the units of the environment
        :raises ValueError: If an observation is not that of the policy.
        :raises TimeoutError: If the planner is too slow, see ``max_late``.
        :raises RuntimeError: If plans were refused instead, or if the first plan was.
        :raises TypeError: If ``observe`` is not a function.
        """
        if not callable(observe):
            raise TypeError("`observe` must be a function that reads an observation: `actions(robot.observe)`, without `()`.")
        due = time.perf_counter()
        while True:
            starting = self.step == 0
            if (now := time.perf_counter()) > due + self.period and not starting:
                due, self.n_overrun = now, self.n_overrun + 1
            time.sleep(max(0.0, due - now))
            action = self.act(observe())
            due = (time.perf_counter() if starting else due) + self.period
            yield action

    def act(self, observation: Any) -> np.ndarray:
        """
        One control step, for callers with a clock of their own, and for simulations.

        :param observation: The observation of this step
        :return: Its action
        :raises ValueError: If the observation is not that of the policy. Errors of the planner are raised, too.
        :raises TimeoutError: If the planner is too slow, see ``max_late``.
        :raises RuntimeError: If plans were refused instead, or if the first plan was.
        """
        if self.closed:
            raise RuntimeError("The control loop is closed; create a new one.")
        self.planner.check(observation)
        observation = copy.deepcopy(observation)  # the caller may reuse its arrays while the planner reads them
        self.history.extend([observation] * (1 if self.history else self.planner.n_obs_steps))
        action = self._planned_action()
        if self.pending is None and self._plan_is_due():
            self._start_plan()
            action = self._planned_action()
        if action is None:
            self._wait(None if self.current is None else self.period / 2)
            action = self._planned_action()
        if action is None:
            action = self._late_action()
            self.certified = False if hasattr(self.planner, "certified") else None
        else:
            self.executed, self.late, self.refused = self.executed + 1, 0, 0
            self.certified = None if self.current is None else self.current.certified
        self.step, self.previous = self.step + 1, action
        return action.copy()

    def _plan_is_due(self) -> bool:
        delay = max(self.delays, default=0)
        interval = max(1, min(self.n_action_steps, self.horizon - delay))
        return self.current is None or self.executed - self.current.start >= interval

    def _start_plan(self) -> None:
        """Start a plan from the latest observations and the remaining actions of the current plan."""
        left = [] if self.current is None else self.current.actions[self.executed - self.current.start :]
        known = np.zeros((self.horizon, *self.planner.action_shape), np.float32)
        if left:
            known[: len(left)] = left
        n_frozen = min(max(self.delays, default=0), len(left))
        weights = soft_mask(n_frozen, len(left), self.horizon) if self.condition else np.zeros(self.horizon, np.float32)
        plan = self.pending = Plan(self.executed, self.step)
        arguments = list(self.history), self.previous, known, weights, self.deterministic

        def work() -> None:
            for action in self.planner.plan(*arguments):
                if not np.isfinite(action).all():
                    raise ValueError(
                        "Actions of the policy are not finite: its parameters are invalid. Load an earlier model."
                    )
                plan.certified = getattr(self.planner, "certified", None)
                plan.actions.append(np.asarray(action))

        if self.pool is None:
            work()
        else:
            plan.future = self.pool.submit(work)

    def _planned_action(self) -> np.ndarray | None:
        """The action of this step of the newest plan that has one; errors of the planner are raised."""
        for plan in (self.current, self.pending):
            if plan is not None and plan.future is not None and plan.future.done():
                plan.future.result()
        pending = self.pending
        if pending is not None and len(pending.actions) > self.executed - pending.start and self._is_ready(pending):
            if self.current is not None:
                self.delays.append(self.step - pending.step)
            self.pending = None
            if self._is_accepted(pending):
                self.current = pending
        if self.current is None or len(self.current.actions) <= self.executed - self.current.start:
            return None
        return self.current.actions[self.executed - self.current.start]

    def _is_accepted(self, plan: Plan) -> bool:
        """Count a plan that is ready. If it is not certified, warn the first time, and refuse it if that was requested."""
        self.n_plans += 1
        if plan.certified is not False:
            return True
        self.n_uncertified += 1
        if self.n_uncertified == 1:
            advice = (
                "it is refused, and `hold` is called instead"
                if self.only_certified
                else "it is executed. `ControlLoop(..., only_certified=True, hold=...)` refuses such plans"
            )
            warnings.warn(
                f"A plan is not certified to be safe (plan {self.n_plans} of this control loop): {advice}. "
                "`certified` tells it for each action, `n_uncertified` counts such plans.",
                stacklevel=4,
            )
        self.refused += self.only_certified
        return not self.only_certified

    def _is_ready(self, plan: Plan) -> bool:
        """Whether a simulated plan is ready."""
        return self.latency is None or self.current is None or self.step >= plan.step + self.latency

    def _wait(self, timeout: float | None) -> None:
        """Wait for the planner. The robot is at rest before the first plan, so that there is no limit for it."""
        futures = [plan.future for plan in (self.current, self.pending) if plan is not None and plan.future is not None]
        start = time.perf_counter()
        wait(futures, timeout)
        if self.current is None and self.pool is not None:
            self.delays.append(ceil((time.perf_counter() - start) / self.period))

    def _late_action(self) -> np.ndarray:
        """The action if no planned action is left."""
        self.late, self.n_late = self.late + 1, self.n_late + 1
        if self.refused and (self.late > self.max_late or self.previous is None):
            raise RuntimeError(
                f"There is no certified plan: {self.refused} in a row were refused, and for {self.late} control steps there "
                "was no planned action. Stop the robot. `act` plans again; more proposals (`best_of_n`) solve more problems."
            )
        if self.late > self.max_late or self.previous is None:
            raise TimeoutError(
                f"The planner is late: for {self.late} control steps of {1e3 * self.period:g} ms there was no planned action. "
                f"A plan has {self.horizon} actions, and the last plans took up to {max(self.delays, default=0)} steps. Use a "
                "lower frequency, longer chunks, a faster sampler, or an exported policy."
            )
        action = np.asarray(self.hold(self.previous))
        if action.shape != self.previous.shape or action.dtype.kind not in "iuf" or not np.isfinite(action).all():
            raise ValueError(f"`hold` has returned {action!r}; expected finite numbers of the shape {self.previous.shape}.")
        return action
