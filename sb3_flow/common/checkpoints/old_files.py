"""Files of version 0.1, whose modules have moved."""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager

#: Modules in files of version 0.1, and their current names.
MOVED = {
    "sb3_flow.common.compact": "sb3_flow.common.checkpoints.compact",
    "sb3_flow.common.observation_store": "sb3_flow.common.data.observation_store",
    "sb3_flow.common.online_buffer": "sb3_flow.common.data.online_buffer",
    "sb3_flow.flow_opt.diffusion": "sb3_flow.baselines.diffusion_opt",
    "sb3_flow.swfp.whole_flow": "sb3_flow.baselines.whole_flow",
}


@contextmanager
def moved_modules() -> Iterator[None]:
    """Context in which modules can also be imported under their former names."""
    added = {old: importlib.import_module(new) for old, new in MOVED.items() if old not in sys.modules}
    sys.modules.update(added)
    try:
        yield
    finally:
        for old in added:
            sys.modules.pop(old, None)
