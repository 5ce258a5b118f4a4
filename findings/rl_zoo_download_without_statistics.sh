#!/bin/sh
# rl_zoo3 2.9.2 with huggingface_hub 2.4.0: download of a model that was trained without VecNormalize.
#
# One would guess: python -m rl_zoo3.load_from_hub prints "No normalization file" where a repository has no vec_normalize.pkl, and
# downloads the rest, as its code intends.
# What happens: it ends with EntryNotFoundError before anything is saved. It catches requests.HTTPError, from which the errors of
# huggingface_hub are no longer derived since that package uses httpx. Only models with VecNormalize can be downloaded.
# Source: rl_zoo3/load_from_hub.py (download_from_hub), versions below. A local server stands in for the hub.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    rl_zoo3==2.9.2 huggingface_hub==2.4.0 sb3-team-hf-integration==3.2 stable-baselines3==2.9.2 torch==2.13.0 gymnasium==1.4.0
cd "$folder"
OMP_NUM_THREADS=1 "$folder/venv/bin/python" -W ignore - <<'PY'
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version

FILES = ["ppo-Pendulum-v1.zip", "config.yml", "args.yml", "env_kwargs.yml", "train_eval_metrics.zip"]


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        name = self.path.split("?")[0].rsplit("/", 1)[-1]
        found = name in FILES
        content = name.encode() if found else b""
        self.send_response(200 if found else 404)
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header(*(("ETag", '"' + "1" * 40 + '"') if found else ("X-Error-Code", "EntryNotFound")))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    do_HEAD = do_GET

    def log_message(self, *arguments):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
environment = {**os.environ, "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": os.path.abspath("cache")}
command = [sys.executable, "-m", "rl_zoo3.load_from_hub", "--algo", "ppo", "--env", "Pendulum-v1", "-orga", "someone", "-f", "logs"]
ended = subprocess.run(command, env=environment, capture_output=True, text=True)
server.shutdown()
error = re.findall(r"^(?:\w+\.)*(\w*Error)\b", ended.stderr, re.MULTILINE)
for package in ("rl_zoo3", "huggingface_hub", "sb3-team-hf-integration"):
    print(package, version(package))
print("exit code:", ended.returncode, "errors:", error[-1:], "message of RL Zoo:", "No normalization file" in ended.stdout)
print("saved:", os.path.isdir("logs"))
sys.exit(not (ended.returncode == 1 and "EntryNotFoundError" in error[-1] and not os.path.isdir("logs")))
PY
