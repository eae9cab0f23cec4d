#!/usr/bin/env bash
# Everything for one GPU in under ten minutes: build, tests, memory checks, then figures.
#
#     bash benchmarks/gpu.sh [FOLDER]     # results go to FOLDER, by default runs/gpu
#
# Needs a torch with CUDA, nvcc and pytest in the Python that runs (PYTHON, by default python3). Parts have time limits
# of their own (seconds, below), so a part that hangs costs the others nothing. Ends with one table; all of it as JSON.
set -uo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
OUT=${1:-runs/gpu}
mkdir -p "$OUT"
failed=0

part() { # name, seconds, command...
  local name=$1 seconds=$2
  shift 2
  echo "== $name"
  timeout "$seconds" "$@" 2>&1 | tee "$OUT/$name.log" | tail -n "${TAIL:-15}"
  local status=${PIPESTATUS[0]}
  if [ "$status" -ne 0 ]; then
    echo "== $name failed ($status), see $OUT/$name.log"
    failed=1
  fi
}

if ! "$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  echo "gpu.sh: a torch that sees a GPU must be installed, got none in $PYTHON" >&2
  exit 2
fi
export TORCH_CUDA_ARCH_LIST=${TORCH_CUDA_ARCH_LIST:-$("$PYTHON" -c 'import torch; print("%d.%d" % torch.cuda.get_device_capability())')}
export PYTHONPATH=.

STGCN_FAST_CUDA=1 part build 240 "$PYTHON" setup.py -q build_ext --inplace
TAIL=60 part info 60 "$PYTHON" -m stgcn_fast.info
part tests 150 "$PYTHON" -m pytest -q -p no:cacheprovider tests/cuda
sanitizer=$(command -v compute-sanitizer || echo "${CUDA_HOME:-/usr/local/cuda}/bin/compute-sanitizer")
if [ -x "$sanitizer" ]; then
  for tool in memcheck racecheck; do
    part "$tool" 60 "$sanitizer" --tool "$tool" --error-exitcode 9 "$PYTHON" benchmarks/gpu_suite.py --touch
  done
else
  echo "== no compute-sanitizer on this machine: memory is not checked"
fi
TAIL=80 part figures "${FIGURES:-240}" "$PYTHON" benchmarks/gpu_suite.py --seconds "${BUDGET:-220}" --json "$OUT/figures.json"
exit $failed
