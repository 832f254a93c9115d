#!/usr/bin/env bash
# What a GPU is needed for, in one call of at most ten minutes, on a machine without network: the tests that look for a
# GPU, then models of published sizes. What the machine lacks is installed from wheels.
#
#   WHEELS=FOLDER OUT=FOLDER bash tests/benchmarks/gpu.sh [options of `python -m tests.benchmarks.gpu`]
#
# PYTHON is the interpreter that has torch, LIMIT the most seconds for the models (figures are written after each stage), OUT
# where figures go. With --device cpu --shrunk everything is small, and no tests are run.
set -uo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3} out=${OUT:-build/gpu}
mkdir -p "$out"
if [ -n "${WHEELS:-}" ]; then
  packages=$(mktemp -d)
  "$python" -m pip install --quiet --no-index --no-deps --no-compile --target "$packages" "$WHEELS"/*.whl || exit 2
  export PYTHONPATH="$packages${PYTHONPATH:+:$PYTHONPATH}"
fi
# The folders at the top are parts of the one package; this machine has nothing to install it with.
"$python" -c 'import lightning_edit.callbacks' 2>/dev/null ||
  for folder in callbacks configs datamodules; do ln -sfn "../$folder" "lightning_edit/$folder"; done
tests=0
export PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
case " $* " in
  *" --device cpu "*) ;;
  *)
    "$python" -c 'import torch; print(torch.__version__, torch.cuda.get_device_name())' || exit 2
    "$python" -m pytest -q -rf --tb=short -n 6 -p no:cacheprovider tests/test_cuda.py tests/keys/test_second_moment.py 2>&1 |
      tee "$out/tests.txt" | tail -15
    tests=${PIPESTATUS[0]}
    ;;
esac
timeout "${LIMIT:-480}" "$python" -m tests.benchmarks.gpu --output "$out/gpu.json" "$@" || exit
exit "$tests"
