#!/bin/sh
# rl_zoo3 2.9.2 with what it requires (sb3-team-hf-integration 3.2, huggingface_hub 2.4.0): its commands for the Hugging Face Hub.
#
# One would guess: both print their options with --help after `pip install rl_zoo3`.
# What happens: load_from_hub imports requests, which none of the packages that rl_zoo3 requires brings any more, since
# huggingface_hub uses another HTTP client. push_to_hub imports generate_metadata, which huggingface_sb3 no longer has.
# Source: rl_zoo3/load_from_hub.py and push_to_hub.py, version 2.9.2; huggingface_sb3/push_to_hub.py, version 3.2.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    rl_zoo3==2.9.2 stable-baselines3==2.9.2 sb3-contrib==2.9.2 sb3-team-hf-integration==3.2 huggingface_hub==2.4.0 \
    torch==2.13.0 gymnasium==1.3.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PY'
import subprocess
import sys
from importlib.metadata import version

for name in ("rl_zoo3", "sb3-team-hf-integration", "huggingface_hub"):
    print(name, version(name))
errors = []
for command in ("load_from_hub", "push_to_hub"):
    run = subprocess.run([sys.executable, "-W", "ignore", "-m", f"rl_zoo3.{command}", "--help"], capture_output=True, text=True)
    lines = run.stderr.strip().splitlines()
    errors.append(lines[-1].split(" (")[0] if lines else "")
    print(f"rl_zoo3.{command} --help: exit code {run.returncode}; {errors[-1] or 'no error'}")
expected = [
    "ModuleNotFoundError: No module named 'requests'",
    "ImportError: cannot import name 'generate_metadata' from 'huggingface_sb3.push_to_hub'",
]
sys.exit(errors != expected)
PY
