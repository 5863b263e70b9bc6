"""Small N-MNIST sets of random recordings, as archives and as trees."""

import zipfile
from pathlib import Path

import numpy as np

Split = dict[str, np.ndarray]
"""Member, `Train/5/00001.bin`, to events `[n, 4]` of t, x, y, p."""


def bin_bytes(events: np.ndarray) -> bytes:
    """Five bytes an event, from the format's description: x, y, polarity in the top bit of 24, time in the others."""
    t, x, y, p = events.astype(np.uint8 if not len(events) else np.int64).T
    return np.stack([x, y, p << 7 | t >> 16, t >> 8 & 255, t & 255], 1).astype(np.uint8).tobytes()


def random_split(split: str, n: int, seed: int, classes: int = 3) -> Split:
    """n recordings of different lengths, one of them empty."""
    random = np.random.default_rng(seed)
    made = {}
    for i in range(n):
        length = 0 if i == 2 else int(random.integers(1, 400))
        t = np.sort(random.integers(0, 320_000, length))
        events = np.stack([t, *random.integers(0, 34, (2, length)), random.integers(0, 2, length)], 1)
        made[f"{split}/{random.integers(classes)}/{i + 1:05}.bin"] = events
    return made


def write_zip(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", method) as archive:
        for member, content in members.items():
            archive.writestr(member, content)


def write_tree(folder: Path, members: dict[str, bytes]) -> None:
    for member, content in members.items():
        (folder / member).parent.mkdir(parents=True, exist_ok=True)
        (folder / member).write_bytes(content)


def small_set(train: int = 150, test: int = 20) -> tuple[Split, Split]:
    return random_split("Train", train, 1), random_split("Test", test, 2)


def write_set(folder: Path, train: int = 150, test: int = 20) -> tuple[Split, Split]:
    """`Train.zip` and `Test.zip` of a small set."""
    splits = small_set(train, test)
    for name, split in zip(("Train", "Test"), splits, strict=True):
        write_zip(folder / f"{name}.zip", {member: bin_bytes(events) for member, events in reversed(split.items())})
    return splits
