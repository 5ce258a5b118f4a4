"""
RL Zoo with the algorithms of this package.

``sb3-flow train | enjoy | optimize | plot | ...`` are RL Zoo's scripts. In your own script, register the algorithms first::

    import sb3_flow.zoo

    sb3_flow.zoo.register()
    rl_zoo3.train.train()
"""

from sb3_flow.zoo.algorithms import ALGORITHMS
from sb3_flow.zoo.hub import load_from_hub
from sb3_flow.zoo.registration import register

__all__ = ["ALGORITHMS", "load_from_hub", "register"]
