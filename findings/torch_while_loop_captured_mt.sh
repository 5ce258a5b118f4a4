#!/bin/sh
# torch 2.13.0: the transpose of a captured tensor in the body of `torch.while_loop`, when the module is exported.
#
# One would guess: `.mT` and `.transpose(-2, -1)` are the same view, so that both can be exported, or neither.
# What happens: with the method, the module is exported. With the attribute, torch.export raises UncapturedHigherOrderOpError
# ("Encountered aliasing during higher order op tracing"): the attribute is read outside of the body, so the loop gets the tensor
# and its transpose as two inputs, which alias.
# Source: torch/_higher_order_ops/while_loop.py and torch/_dynamo/variables/higher_order_ops.py, version 2.13.0.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
cd "$folder"
OMP_NUM_THREADS=1 "$folder/venv/bin/python" -W ignore - <<'PY'
import sys

import torch


class Loop(torch.nn.Module):
    def __init__(self, attribute):
        super().__init__()
        self.attribute = attribute
        self.weight = torch.nn.Parameter(torch.ones(2, 2))

    def forward(self, x):
        weight = 2 * self.weight

        def body(k, y):
            other = weight.mT if self.attribute else weight.transpose(-2, -1)
            return k + 1, y @ weight @ other

        return torch.while_loop(lambda k, y: k < 3, body, (torch.zeros((), dtype=torch.int64), x.clone()))[1]


print("torch", torch.__version__)
outcomes = {}
for name, attribute in {".mT": True, ".transpose(-2, -1)": False}.items():
    try:
        torch.export.export(Loop(attribute), (torch.ones(3, 2),))
        outcomes[name] = "exported"
    except Exception as error:
        outcomes[name] = type(error).__name__
        print([line.strip() for line in str(error).splitlines() if "aliasing" in line][:1])
    print(f"{name}: {outcomes[name]}")
sys.exit(outcomes != {".mT": "UncapturedHigherOrderOpError", ".transpose(-2, -1)": "exported"})
PY
