"""Feeds a decoder of event recordings with what libFuzzer invents: no crash, no hang, no allocation beyond the file.

`pip install atheris`, then, from the root of the repository, ten minutes for each of nmnist, aedat2, aedat3:

    python -m tests.fuzz.decoders nmnist -max_total_time=600 -max_len=4096 -timeout=10
"""

import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import atheris  # pyright: ignore[reportMissingModuleSource] only who fuzzes has it

with atheris.instrument_imports(include=["stbp.data.events"]):  # pyright: ignore[reportAttributeAccessIssue]
    from stbp.data.error import DataError
    from stbp.data.events.formats import aedat2, aedat3, nmnist

from tests.data.events import files

EVENTS = [(10, 3, 4, 1), (20, 127, 0, 0), (19, 5, 6, 1), (8_000_000, 33, 33, 0)]
SEEDS = {
    "nmnist": (nmnist.decode, files.nmnist([*EVENTS, (0, 0, 240, 0), (1 << 22, 1, 2, 1)])),
    "aedat2": (aedat2.decode, files.aedat2(EVENTS)),
    "aedat3": (aedat3.decode, files.AEDAT3_HEADER + files.aedat3_packet(EVENTS) + files.aedat3_special(7)),
}


def main() -> None:
    decode, seed = SEEDS[sys.argv.pop(1)]

    def one(raw: bytes) -> None:
        for repairs in (None, Counter()):
            with suppress(DataError):
                events = decode(raw, "file", repairs)
                files.check(events)
                assert len(events) <= len(raw) // 5
                if decode is nmnist.decode and (not len(events) or events["t"][-1] < nmnist.LONGEST):
                    assert nmnist.decode(nmnist.encode(events), "again").tobytes() == events.tobytes()

    with TemporaryDirectory() as corpus:
        (Path(corpus) / "seed").write_bytes(seed)
        atheris.Setup([*sys.argv, corpus], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
