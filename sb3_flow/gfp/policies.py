"""FQL's policy with a value-aware teacher (extends `fql`)."""

from typing import ClassVar

from sb3_flow.fql.policies import FQLPolicy


class GFPPolicy(FQLPolicy):
    """
    FQL's policy, whose flow is trained by value-aware behavior cloning (VaBC).

    Samplers: ``"one_step"`` (the default) and ``"vabc"`` (the value-aware BC flow).

    :param flow_steps: Euler steps of the flow
    :param encode_time_dim: Size of the embedding of the flow's time; 0: the time itself, as in FQL
    """

    guided_samplers: ClassVar[tuple[str, ...]] = ("vabc",)

    def build(self, flow_steps: int = 10, encode_time_dim: int = 64) -> None:
        super().build(flow_steps, encode_time_dim)
        self.samplers = {"one_step": "act_one_step", "vabc": "act_bc_flow"}
