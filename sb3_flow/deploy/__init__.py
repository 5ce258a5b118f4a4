"""Running exported policies, with numpy and ONNX Runtime only. See ``FlowAlgorithm.export``."""

from sb3_flow.deploy.onnx_policy import OnnxPolicy

__all__ = ["OnnxPolicy"]
