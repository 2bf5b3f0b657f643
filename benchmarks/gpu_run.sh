#!/usr/bin/env bash
# All that wants a CUDA device, in ten minutes at most: the tests marked gpu, a compile of two embedded models, and what a
# policy costs on FLUX and Wan at their real sizes, eager, compiled and with CUDA graphs.
#
#   benchmarks/gpu_run.sh [OUT]              results go to OUT; default benchmarks/results, named after the device
#   benchmarks/gpu_run.sh wheels DIR         collects the wheels that a machine without a package index lacks
#   WHEELS=DIR benchmarks/gpu_run.sh [OUT]   installs those first, beside the torch that is there
#   DEVICE=cpu benchmarks/gpu_run.sh OUT     the same on the CPU with small models, to try the script
#
# A part that fails or takes too long ends with a word and the next one begins; the exit status says whether all passed.
set -uo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3}
DEVICE=${DEVICE:-cuda}
# What neither torch nor transformers bring along.
PACKAGES=(accelerate annotated-types attrs cffi click cryptography diffusers filelock ftfy huggingface-hub imageio
    importlib-metadata iniconfig jsonschema jsonschema-specifications markdown-it-py mdurl msgspec peft pillow pluggy
    pycparser pygments pytest pytest-timeout referencing rfc8785 rich rpds-py safetensors securesystemslib tokenizers
    transformers wcwidth zipp)

if [[ ${1:-} == wheels ]]; then
    mkdir -p "${2:?where to: benchmarks/gpu_run.sh wheels DIR}"
    exec "$PYTHON" -m pip download --quiet --no-deps --only-binary=:all: --python-version "${PYTHON_VERSION:-3.12}" \
        --constraint constraints.txt --dest "$2" "${PACKAGES[@]}"
fi

OUT=${1:-benchmarks/results}
mkdir -p "$OUT"
if [[ -n ${WHEELS:-} ]]; then
    "$PYTHON" -m venv --system-site-packages "$WHEELS/venv"
    PYTHON=$WHEELS/venv/bin/python
    "$PYTHON" -m pip install --quiet --no-index --no-deps "$WHEELS"/*.whl || exit 1
fi
export PYTHONPATH=$PWD/src${PYTHONPATH:+:$PYTHONPATH}
# For example "h200"; a results file is named after the device that it was measured on.
NAME=$("$PYTHON" - "$DEVICE" <<'PY'
import sys

import torch

name = "cpu" if sys.argv[1] == "cpu" else torch.cuda.get_device_name().split()[1].lower()
print(name)
PY
) || exit 1

SCRATCH=$(mktemp -d)
trap 'rm -rf "$SCRATCH"' EXIT
exec > >(tee "$OUT/gpu-run-$NAME.txt") 2>&1
failed=0
# A CPU that is busy with other work is slow, and there only the script is tried.
PATIENCE=1
[[ $DEVICE == cpu ]] && PATIENCE=5
part() { # seconds, what it is called, command
    local limit=$((PATIENCE * $1)) what=$2 began=$SECONDS
    shift 2
    printf '\n== %s: %s\n' "$what" "$*"
    if timeout "$limit" "$@"; then
        printf '== %s: done in %d s\n' "$what" $((SECONDS - began))
    else
        printf '== %s: failed, or took over %d s\n' "$what" "$limit"
        failed=1
    fi
}

# A search takes minutes on a CPU, where only the script is tried.
SEARCH=joint
[[ $DEVICE == cpu ]] && SEARCH=uniform

part 150 tests "$PYTHON" -m pytest -q -m gpu tests
for model in flux-nano wan2.1-nano; do
    part 90 "compile $model" "$PYTHON" -m budc compile --model "$model" --budget 8 --search $SEARCH \
        --device "$DEVICE" --out "$SCRATCH/$model.budc.json"
done
if [[ $DEVICE == cpu ]]; then
    part 60 "check of the model" "$PYTHON" benchmarks/model_check.py --device cpu --heads 1 --json "$OUT/model-check-$NAME.json"
    part 120 "cost of a policy" "$PYTHON" benchmarks/gpu.py --device cpu --models flux-nano --modes eager --peers "" \
        --prompts 2 --repeats 1 --json "$OUT/gpu-$NAME.json"
else
    part 60 "check of the model" "$PYTHON" benchmarks/model_check.py --device cuda --cells 64 --json "$OUT/model-check-$NAME.json"
    part 200 "cost of a policy" "$PYTHON" benchmarks/gpu.py --models flux.1-dev,wan2.1 --peers "" --prompts 5 --repeats 3 \
        --json "$OUT/gpu-$NAME.json"
fi
exit $failed
