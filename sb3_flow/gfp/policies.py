"""The policy of FQL with a teacher that knows values: its networks, and how it acts."""

from sb3_flow.fql.policies import FQLPolicy


class GFPPolicy(FQLPolicy):
    """
    FQL's policy, whose flow is cloned from the actions that are better than the actor's: value-aware behaviour cloning.

    Heads: ``"one_step"`` (what GFP acts with) and ``"vabc"`` (the value-aware clone).

    :param flow_steps: Euler steps of the flow
    :param encode_time_dim: Size of the embedding of the flow's time; 0: the time itself, as in FQL
    """

    def build(self, flow_steps: int = 10, encode_time_dim: int = 64) -> None:
        super().build(flow_steps, encode_time_dim)
        self.heads = {"one_step": "act_one_step", "vabc": "act_bc_flow"}
