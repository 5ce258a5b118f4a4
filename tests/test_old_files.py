"""Files that version 0.1 wrote still load: models, replay buffers, checkpoints."""

import importlib
from pathlib import Path

import numpy as np
import pytest
from conformance.environments import collect, pendulum
from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_flow import FPMD, FQL, GFP, QAM, SWFP, DecisionFlow, FlowOpt, StreamingFlow
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
    model = MODELS[name].load(FILES / f"{name}.zip", device="cpu", trusted=True)
    actions, _ = model.predict(then["observations"], deterministic=True)
    np.testing.assert_allclose(actions, then[name], rtol=0, atol=1e-6)


@pytest.mark.filterwarnings("error::DeprecationWarning")
def test_a_flow_opt_model_plans_as_it_did(tmp_path: Path) -> None:
    """Its file has the former names of arguments, attributes and parameters; saved again, it has those of today."""
    then = np.load(FILES / "flow_opt.npz")
    observation = {name.removeprefix("observation_"): then[name] for name in then.files if name.startswith("observation_")}
    model = FlowOpt.load(FILES / "FlowOpt.zip", device="cpu", trusted=True)
    for again in (model, FlowOpt.load(saved(model, tmp_path), device="cpu")):
        assert again.initializer_batch_size == 3
        assert again.policy.filter.settings.majorization == 2.5
        assert sum("initializer" in name for name in again.policy.state_dict()) > 20
        for sampler, name in (("filter", "plan"), ("flow", "proposal")):
            action, _ = again.policy.with_sampler(sampler).predict(observation, deterministic=True)
            np.testing.assert_allclose(action, then[name], rtol=0, atol=1e-5)
        names = [*vars(again), *again.policy_kwargs, *again.policy_kwargs["filter_kwargs"], *again.policy.state_dict()]
        assert not [name for name in names if "initialis" in name or "majoris" in name]


def saved(model: BaseAlgorithm, folder: Path) -> Path:
    model.save(folder / "again.zip")
    return folder / "again.zip"


def test_a_run_is_resumed() -> None:
    """5 offline updates, and 15 of 25 steps of the environment, were done."""
    model = FQL.resume(FILES / "run", pendulum(), dataset=collect(pendulum), device="cpu", trusted=True)
    assert (model.n_offline_updates, model.n_env_steps, len(model.replay_buffer)) == (5, 15, 15)
    model.learn(30)
    assert (model.num_timesteps, model.n_env_steps) == (30, 25)


def test_former_modules_are_there_only_while_a_file_is_read() -> None:
    for name in MOVED:
        with moved_modules():
            assert importlib.import_module(name)
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module(name)
