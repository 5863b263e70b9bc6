"""Weights after training by two checkouts of stbp, compared bit for bit.

    python research/same_training.py OLD NEW --data DIR [--python PYTHON] [--out DIR]

OLD and NEW are checkouts with compiled kernels (`make kernels`). Each trains digits-mlp to its end, and mnist-mlp,
mnist-cnn, nmnist-mlp and mnist-rows for one epoch, in a process of its own. Ends with 1 if a weight differs.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

TRAININGS = {
    "digits-mlp": [],
    **{name: ["--epochs", "1"] for name in ("mnist-mlp", "mnist-cnn", "nmnist-mlp", "mnist-rows")},
}
START = """
import sys
try:
    from stbp.cli.main import main
except ImportError:  # before the rooms
    from stbp.cli import main
sys.argv[0] = "stbp"
sys.exit(main())
"""


def trained(checkout: Path, name: str, python: str, data: Path, out: Path) -> dict[str, torch.Tensor]:
    """Train an experiment by a checkout; return the weights of its checkpoint."""
    files = [] if name == "digits-mlp" else ["--data", str(data)]
    command = [python, "-c", START, "train", name, *TRAININGS[name], *files]
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    subprocess.run([*command, "--threads", "2", "--out", str(out)], env=environment, check=True)
    tensors = load_file(out / "checkpoint.safetensors")
    return {key: value for key, value in tensors.items() if key.startswith("network.")}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("old", type=Path, metavar="OLD")
    parser.add_argument("new", type=Path, metavar="NEW")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--python", default=sys.executable, help="interpreter without an installed stbp")
    parser.add_argument("--out", type=Path, default=Path("runs") / "same", metavar="DIR")
    args = parser.parse_args()
    different = []
    for name in TRAININGS:
        old, new = (
            trained(checkout.resolve(), name, args.python, args.data.resolve(), args.out / side / name)
            for side, checkout in (("old", args.old), ("new", args.new))
        )
        keys = [
            key
            for key in sorted({*old, *new})
            if key not in old or key not in new or not torch.equal(old[key], new[key])
        ]
        print(name, "differs in " + ", ".join(keys) if keys else "is the same, bit for bit")
        different += keys
    sys.exit(bool(different))


if __name__ == "__main__":
    main()
