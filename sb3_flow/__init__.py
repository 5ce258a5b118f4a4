"""
Flow-policy reinforcement learning for Stable-Baselines3.

``FQL``, ``QAM``, ``RQL``, ``GFP``, ``FPMD`` and ``StreamingFlow`` follow the published methods. ``DecisionFlow``, ``SWFP`` and
``FlowOpt`` are our reconstructions of papers of which parts were not available to us; their pages in ``docs/`` list what is
ours.
"""

from importlib.util import find_spec

if find_spec("torch") is not None:  # without PyTorch, only `sb3_flow.deploy` can be used
    import sb3_flow.datasets
    import sb3_flow.envs  # noqa: F401 (registers the environments)
    from sb3_flow.methods import *  # noqa: F403
    from sb3_flow.methods import __all__ as __all__

__version__ = "0.1.0"
