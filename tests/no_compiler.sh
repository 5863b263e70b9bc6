#!/usr/bin/env bash
# Shows that stbp installs and trains on a machine without compiler, make, cmake and ninja, and says that it has no
# kernels. Takes a few minutes: the environment is new. Usage: tests/no_compiler.sh [a Python, default python3]
set -euo pipefail
python="$(command -v "${1:-python3}")"
source="$(cd "$(dirname "$0")/.." && pwd)"
place="$(mktemp -d)"
trap 'rm -rf "$place"' EXIT

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

"$python" -m venv "$place/venv"
torch="$(sed -n 's/^TORCH ?= //p' "$source/Makefile")"
mkdir "$place/bin" "$place/source"
tar -C "$source" --exclude='./.*' --exclude=./build --exclude=./runs --exclude='*.so' -cf - . | tar -C "$place/source" -xf -
for tool in bash grep rm; do
    ln -s "$(command -v "$tool")" "$place/bin/$tool"
done

# nothing else is on the PATH from here on
export PATH="$place/venv/bin:$place/bin"
unset CC CXX CMAKE_GENERATOR CMAKE_ARGS PYTHONPATH STBP_KERNELS
for tool in c++ g++ gcc clang clang++ cc make cmake ninja; do
    ! command -v "$tool" || fail "$tool is on the PATH"
done
cd "$place"
pip install -q "torch==$torch" -r source/requirements.txt
pip install -q ./source

python -c 'from stbp.ops import native; native.warn_once(); assert native.kernels() is None' 2>&1 |
    grep "no C++ compiler" || fail "there are kernels, or no message that says why not"
stbp list >list.txt || fail "stbp list"
stbp train digits-mlp --epochs 1 --out run || fail "stbp train"
echo "OK: stbp works without a compiler"
