#!/bin/sh
# onnxruntime 1.32.0 and torch 2.13.0: `torch.where` that selects between two tensors of bool, exported to ONNX.
#
# One would guess: it runs, because the operator Where of ONNX has all types, and the exporter writes a valid file.
# What happens: the exporter writes Where with bool, the checker of ONNX accepts the file, and ONNX Runtime does not load it on a
# CPU: "NOT_IMPLEMENTED: Could not find an implementation for Where(16)". With `mask & a | ~mask & b` the module runs.
# Source: docs/OperatorKernels.md of onnxruntime (types of Where), version 1.32.0.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    torch==2.13.0 onnxruntime==1.32.0 onnx==1.23.2 onnxscript==0.7.2 numpy==2.4.6
cd "$folder"
OMP_NUM_THREADS=1 "$folder/venv/bin/python" -W ignore - <<'PY' 2> errors.txt || { cat errors.txt; exit 1; }
import sys

import onnx
import onnxruntime
import torch


class Choose(torch.nn.Module):
    def __init__(self, where):
        super().__init__()
        self.where = where

    def forward(self, mask, a, b):
        return torch.where(mask, a, b) if self.where else mask & a | ~mask & b


print("onnxruntime", onnxruntime.__version__, "torch", torch.__version__)
inputs = {name: torch.tensor(values) for name, values in zip("mask a b".split(), ([True, False], [True, True], [False, False]))}
outcomes = {}
for name, where in {"torch.where": True, "& and |": False}.items():
    program = torch.onnx.export(Choose(where), tuple(inputs.values()), dynamo=True, verbose=False)
    onnx.checker.check_model(program.model_proto)
    try:
        session = onnxruntime.InferenceSession(program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])
        outcomes[name] = session.run(None, {key: value.numpy() for key, value in inputs.items()})[0].tolist()
    except Exception as error:
        outcomes[name] = type(error).__name__
        print(str(error)[:100])
    print(f"{name}: {outcomes[name]}")
sys.exit(outcomes != {"torch.where": "NotImplemented", "& and |": [True, False]})
PY
