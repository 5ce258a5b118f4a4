"""
RL Zoo, with our algorithms in it.

``sb3-flow train | enjoy | optimize | plot | ...`` are RL Zoo's own scripts. A script of one's own gets the same by::

    import sb3_flow.zoo

    sb3_flow.zoo.register()  # before the function of RL Zoo is called
    rl_zoo3.train.train()
"""

from sb3_flow.zoo.algorithms import ALGORITHMS
from sb3_flow.zoo.registration import register

__all__ = ["ALGORITHMS", "register"]
