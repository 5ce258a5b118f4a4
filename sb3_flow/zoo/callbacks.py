"""Callbacks for runs of RL Zoo."""

from typing import Any

from stable_baselines3.common.callbacks import EvalCallback


class HeadEvalCallback(EvalCallback):
    """
    Evaluates another way to act of the same policy, such as the behaviour-cloned flow within FQL.

    :param head: Its name, see ``FlowPolicy.heads``
    :param args: As those of ``EvalCallback``, like ``kwargs``
    """

    def __init__(self, head: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.head = head

    def _init_callback(self) -> None:
        super()._init_callback()
        policy: Any = self.model.policy
        if not hasattr(policy, "with_head"):
            raise ValueError(f"{type(self.model).__name__} acts in one way only, so there is no {self.head!r} to evaluate.")
        policy.with_head(self.head)  # raises if there is none of that name

    def _on_step(self) -> bool:
        policy: Any = self.model.policy
        usual, policy.head = policy.head, self.head
        try:
            return super()._on_step()
        finally:
            policy.head = usual
