#!/usr/bin/env bash
# What only a GPU can tell, in one call of under ten minutes: tests, times, the paper's MLP trained with and without graphs.
#
#     benchmarks/gpu_check.sh DATA OUT [PYTHON]
#
# DATA holds mnist/; PYTHON, python3 if not given, has torch for CUDA and what requirements.txt and requirements-test.txt
# name, and runs this checkout as it is. Relative paths are from where it is called. With SPIKINGJELLY_SOURCE, an archive or
# folder of its source, and a CUDA compiler, SpikingJelly's own CUDA operators are built and timed too.
set -uo pipefail
data=$(realpath "$1") out=$(realpath -m "$2") python=$(command -v "${3:-python3}") failed=0
cd "$(dirname "$0")/.."
mkdir -p "$out"
export PYTHONPATH=$PWD
stbp='from stbp.cli import main; raise SystemExit(main())'

part() { # seconds, name, command...
    local code
    echo "== $2"
    timeout -k 5 "$1" "${@:3}" 2>&1 | tee "$out/$2.log"
    code=${PIPESTATUS[0]}
    [ "$code" = 0 ] || { failed=1; echo "== $2 failed: exit code $code"; }
}

part 30 device "$python" -c 'import torch, triton; print(torch.cuda.get_device_name(), torch.__version__, triton.__version__)'
part 150 tests "$python" -m pytest -q tests/ops/test_gpu.py tests/test_graph.py
part 110 bench-mlp "$python" -c "$stbp" bench --device cuda --peers --rounds 7 --networks 784-800-10 \
    --data "$data" --out "$out/mlp"
part 110 bench-cnn "$python" -c "$stbp" bench --device cuda --peers --rounds 7 \
    --networks 28x28-15C5-P2-40C5-P2-300-10 --data "$data" --out "$out/cnn"
if [ -n "${SPIKINGJELLY_SOURCE:-}" ] && command -v nvcc >/dev/null; then
    part 120 build-native env SJ_BUILD_NATIVE_CUDA=1 "$python" -m pip install --no-deps --no-build-isolation \
        --target "$out/native" "$SPIKINGJELLY_SOURCE"
    part 60 bench-native env SJ_LIF_CUDA_IMPLEMENTATION=cuda PYTHONPATH="$out/native:$PYTHONPATH" "$python" -c "$stbp" \
        bench --device cuda --peers --rounds 7 --networks 784-800-10 --data "$data" --out "$out/native-mlp"
fi
for graph in graph no-graph; do
    part 80 "epochs-$graph" "$python" -c "$stbp" train mnist-mlp-tuned --epochs 60 --device cuda "--$graph" \
        --data "$data" --out "$out/mnist-mlp-tuned-$graph"
done
exit "$failed"
