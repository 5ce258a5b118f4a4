#!/bin/sh
# onnxscript 0.7.2, which torch 2.13.0 calls in torch.onnx.export: additions of small constants.
#
# One would guess: `1 / (x + 1e-9)` keeps its constant, which is there to avoid a division by zero.
# What happens: the optimization of the exported graph, which is on by default, takes constants of up to 1e-8 for 0 and removes the
# addition. The exported file returns inf at x = 0, PyTorch 1e9. There is no warning, and `verify=True` compares at the inputs of the
# export only. With `optimize=False` the addition stays.
# Source: onnxscript/rewriter/rules/common/_no_op.py (add_0) and onnxscript/rewriter/_pattern_ir.py (abs_tol), version 0.7.2.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    torch==2.13.0 onnxruntime==1.32.0 onnx==1.23.2 onnxscript==0.7.2 numpy==2.4.6
cd "$folder"
OMP_NUM_THREADS=1 "$folder/venv/bin/python" -W ignore - <<'PY' 2> errors.txt || { cat errors.txt; exit 1; }
import sys
from importlib.metadata import version

import onnxruntime
import torch


class Inverse(torch.nn.Module):
    def __init__(self, small):
        super().__init__()
        self.small = small

    def forward(self, x):
        return 1 / (x + self.small)


print("onnxscript", version("onnxscript"), "torch", torch.__version__)
x = torch.zeros(1)
found = {}
for small in (1e-7, 1e-8, 1e-9):
    for optimize in (True, False):
        program = torch.onnx.export(Inverse(small).eval(), (x + 1,), dynamo=True, verbose=False, optimize=optimize)
        session = onnxruntime.InferenceSession(program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])
        found[small, optimize] = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0].item()
    print(f"1 / (0 + {small}): PyTorch {Inverse(small)(x).item():.0e}, optimize=True {found[small, True]:.0e}, "
          f"optimize=False {found[small, False]:.0e}")
lost = [small for small in (1e-7, 1e-8, 1e-9) if found[small, True] == float("inf")]
kept = all(found[small, False] < float("inf") for small in (1e-7, 1e-8, 1e-9))
sys.exit(not (lost == [1e-8, 1e-9] and kept))
PY
