"""A collection that fails, or is killed, while Minari writes leaves nothing that breaks Minari or the next collection."""

from pathlib import Path
from typing import Any

import pytest
from stable_baselines3 import SAC

from sb3_flow.datasets import collect_with_policy, load_dataset

minari = pytest.importorskip("minari")
NAME = "mine/arm/test-v0"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.setenv("SB3_FLOW_DATA_DIR", str(tmp_path / "own"))
    return tmp_path / "minari"


def collect(name: str = NAME) -> str:
    model = SAC("MlpPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [4]}, buffer_size=10, device="cpu")
    return collect_with_policy("Pendulum-v1", model, 30, name, progress=False)


def test_it_is_complete_or_not_there(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create = minari.create_dataset_from_buffers

    def failing(name: str, *args: Any, **kwargs: Any) -> None:
        create(name, *args, **kwargs)
        # What a process leaves behind that is killed before the end.
        (Path(minari.storage.get_dataset_path(name)) / "data" / "metadata.json").unlink()
        assert minari.list_local_datasets() == {} and not (root / "mine").exists()
        raise KeyboardInterrupt

    monkeypatch.setattr(minari, "create_dataset_from_buffers", failing)
    with pytest.raises(KeyboardInterrupt):
        collect()
    assert not list(root.iterdir())
    monkeypatch.undo()
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(root))
    monkeypatch.setenv("SB3_FLOW_DATA_DIR", str(root.parent / "own"))
    (root / ".unfinished-killed" / NAME / "data").mkdir(parents=True)
    assert collect() == f"minari:{NAME}"
    assert set(minari.list_local_datasets()) == {NAME}
    assert "mine/arm" in minari.namespace.list_local_namespaces()
    assert len(load_dataset(f"minari:{NAME}")) == 30
    with pytest.raises(ValueError, match="exists; choose another name"):
        collect()
