#!/usr/bin/env bash
# What only a GPU can tell, in one call of under ten minutes: tests, times, seeds of the paper's MLP.
#
#     benchmarks/gpu_check.sh DATA OUT [PYTHON]
#
# DATA holds mnist/; PYTHON has torch for CUDA, stbp's requirements and pytest, and runs from this checkout as it is.
set -uo pipefail
cd "$(dirname "$0")/.."
data=$1 out=$2 python=${3:-python3} failed=0
mkdir -p "$out"
export PYTHONPATH=$PWD
stbp='from stbp.cli import main; raise SystemExit(main())'

part() { # seconds, name, command...
    echo "== $2"
    timeout "$1" "${@:3}" 2>&1 | tee "$out/$2.log" || { failed=1; echo "== $2 failed: $?"; }
}

part 30 device "$python" -c 'import torch, triton; print(torch.cuda.get_device_name(), torch.__version__, triton.__version__)'
part 120 tests "$python" -m pytest -q tests/ops/test_gpu.py tests/test_graph.py
part 120 bench "$python" -c "$stbp" bench --device cuda --peers --rounds 7 --data "$data" --out "$out"
for graph in no-graph graph; do
    part 90 "epochs-$graph" "$python" -c "$stbp" train mnist-mlp-tuned --epochs 60 --device cuda "--$graph" \
        --data "$data" --out "$out/mnist-mlp-tuned-$graph"
done
exit "$failed"
