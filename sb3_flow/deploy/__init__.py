"""Running policies on robots, with numpy and ONNX Runtime only. See ``FlowAlgorithm.export``."""

from sb3_flow.deploy.control_loop import ControlLoop
from sb3_flow.deploy.onnx_policy import OnnxPolicy

__all__ = ["ControlLoop", "OnnxPolicy"]
