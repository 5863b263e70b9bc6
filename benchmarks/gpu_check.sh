#!/usr/bin/env bash
# What only a GPU can tell, in one call of under ten minutes: tests, times, the paper's MLP trained with and without graphs.
#
#     benchmarks/gpu_check.sh DATA OUT [PYTHON]
#
# DATA holds mnist/; PYTHON, python3 if not given, has torch for CUDA and what requirements.txt and requirements-test.txt
# name, and runs this checkout as it is; `make kernels` before it spares minutes. Relative paths are from where it is called.
# With SPIKINGJELLY_SOURCE, an archive or folder of its source, and a CUDA compiler, SpikingJelly's own CUDA operators are
# built first, so that it takes them; otherwise it takes Triton's. OUT/parts.tsv: every part's exit code and seconds from
# start to end of its process.
set -uo pipefail
data=$(realpath "$1") out=$(realpath -m "$2") python=$(command -v "${3:-python3}") failed=0
cd "$(dirname "$0")/.."
mkdir -p "$out"
export PYTHONPATH=$PWD
stbp='from stbp.cli import main; raise SystemExit(main())'

part() { # seconds, name, command...
    local code begun=$(date +%s.%N)
    echo "== $2"
    timeout -k 5 "$1" "${@:3}" 2>&1 | tee "$out/$2.log"
    code=${PIPESTATUS[0]}
    printf '%s\t%s\t%.1f\n' "$2" "$code" "$(echo "$(date +%s.%N) $begun" | awk '{print $1 - $2}')" >>"$out/parts.tsv"
    [ "$code" = 0 ] || { failed=1; echo "== $2 failed: exit code $code"; }
}

bench() { # seconds, name, network
    part "$1" "bench-$2" "$python" -c "$stbp" bench --device cuda --peers --rounds 7 --threads "$(nproc)" \
        --networks "$3" --data "$data" --out "$out/$2"
}

part 30 device "$python" -c 'import torch, triton; print(torch.cuda.get_device_name(), torch.__version__, triton.__version__)'
if [ -n "${SPIKINGJELLY_SOURCE:-}" ] && command -v nvcc >/dev/null; then
    part 60 build-spikingjelly env SJ_BUILD_NATIVE_CUDA=1 "$python" -m pip install --no-deps --no-build-isolation \
        --target "$out/spikingjelly" "$SPIKINGJELLY_SOURCE"
    export PYTHONPATH="$out/spikingjelly:$PYTHONPATH"
fi
# the whole way to the final accuracy, kernels compiled anew
export TRITON_CACHE_DIR=$out/triton
part 70 epochs-graph "$python" -c "$stbp" train mnist-mlp --epochs 60 --device cuda --graph --data "$data" --out "$out/graph"
part 60 epochs-no-graph "$python" -c "$stbp" train mnist-mlp --epochs 20 --device cuda --data "$data" --out "$out/no-graph"
bench 70 mlp 784-800-10
bench 80 cnn 28x28-15C5-P2-40C5-P2-300-10
bench 60 neurons neurons
bench 50 wide 784-16384-10
part 100 tests "$python" -m pytest -q tests/ops/test_gpu.py tests/train/test_cuda_graph.py
exit "$failed"
