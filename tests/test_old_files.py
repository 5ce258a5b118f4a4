"""Files that version 0.1 wrote still load: models, replay buffers, checkpoints."""

import importlib
from pathlib import Path

import numpy as np
import pytest
from conformance.environments import collect, pendulum
from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_flow import FPMD, FQL, GFP, QAM, SWFP, DecisionFlow, StreamingFlow
from sb3_flow.baselines import ChunkFlow
from sb3_flow.baselines.whole_flow import WholeFlow
from sb3_flow.common.checkpoints.old_files import MOVED, moved_modules

FILES = Path(__file__).parent / "files_0_1"
MODELS: dict[str, type[BaseAlgorithm]] = {
    "FQL": FQL,
    "GFP": GFP,
    "QAM-EDIT": QAM,
    "FPMD": FPMD,
    "SWFP": SWFP,
    "WholeFlow": WholeFlow,
    "DecisionFlow-DIV": DecisionFlow,
    "StreamingFlow": StreamingFlow,
    "ChunkFlow": ChunkFlow,
}


@pytest.mark.parametrize("name", MODELS)
def test_models_act_as_they_did(name: str) -> None:
    """The actions were written by the version that wrote the model."""
    then = np.load(FILES / "actions.npz")
    model = MODELS[name].load(FILES / f"{name}.zip", device="cpu")
    actions, _ = model.predict(then["observations"], deterministic=True)
    np.testing.assert_allclose(actions, then[name], rtol=0, atol=1e-6)


def test_a_run_is_resumed() -> None:
    """5 offline updates, and 15 of 25 steps of the environment, were done."""
    model = FQL.resume(FILES / "run", pendulum(), dataset=collect(pendulum), device="cpu")
    assert (model.n_offline_updates, model.n_env_steps, len(model.replay_buffer)) == (5, 15, 15)
    model.learn(30)
    assert (model.num_timesteps, model.n_env_steps) == (30, 25)


def test_former_modules_are_there_only_while_a_file_is_read() -> None:
    for name in MOVED:
        with moved_modules():
            assert importlib.import_module(name)
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module(name)
