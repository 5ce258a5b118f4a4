#!/bin/sh
# torch 2.13.0: fused Adam on a CPU, with gradients from torch.autograd.grad.
#
# One would guess: Adam(fused=True) makes the same step as Adam(fused=False), whatever the order in memory of `.grad` is.
# What happens: a gradient with other strides than its parameter, such as that of a transposed weight, is read in the order of
# memory: other elements are updated, without an error. `backward()` stores gradients with the strides of the parameters, so it
# hides this; assigning what torch.autograd.grad returns does not.
# Source: torch.optim.Adam, version 2.13.0.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
cd "$folder"
OMP_NUM_THREADS=1 "$folder/venv/bin/python" -W ignore - <<'PY'
import sys

import torch

print("torch", torch.__version__)
start = torch.arange(6.0).reshape(2, 3)
direction = torch.tensor([[1.0, 1.0, 1.0], [-1.0, -1.0, -1.0]])  # the first step is against the sign of the gradient


def step(assigned, fused):
    weight = torch.nn.Parameter(start.clone())
    loss = (weight.T * direction.T.contiguous()).sum()
    if assigned:
        (weight.grad,) = torch.autograd.grad(loss, [weight])
    else:
        loss.backward()
    strides = weight.grad.stride()
    torch.optim.Adam([weight], lr=0.1, fused=fused).step()
    return strides, (weight.detach() - start).sign()


for assigned in (False, True):
    for fused in (False, True):
        strides, change = step(assigned, fused)
        print("assigned" if assigned else "backward", "fused" if fused else "plain", strides, change.tolist())
right = [torch.equal(step(assigned, fused)[1], -direction) for assigned in (False, True) for fused in (False, True)]
sys.exit(right != [True, True, True, False])
PY
