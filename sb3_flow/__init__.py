"""
Flow-policy reinforcement learning for Stable-Baselines3.

``FQL``, ``QAM``, ``GFP``, ``FPMD`` and ``StreamingFlow`` are as published. ``DecisionFlow``, ``SWFP`` and ``FlowOpt`` are our
reconstructions of papers that leave parts open; the pages in ``docs/`` say which parts.
"""

import sb3_flow.datasets
import sb3_flow.envs  # noqa: F401 (so that Gymnasium knows their ids)
from sb3_flow.methods import *  # noqa: F403
from sb3_flow.methods import __all__ as __all__

__version__ = "0.1.0"
