"""AEDAT 4 in a process of its own: a damaged file can make faery 0.7.1 abort the process that reads it.

It panics while it cleans up after another panic, for instance where a stream's type is not UTF-8; nothing in Python can
catch that. Found by changing single bytes of a real recording; DAT and EVT files withstood the same. It costs about
half a second a file.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from stbp.data.error import DataError, NotInstalledError
from stbp.data.events.formats.faery import Sensor, decode
from stbp.data.events.formats.record import EVENT

MEMORY = 16 << 30
"""Bytes that the process may address, where the system can set a limit: a packet may say that it is any size."""


def decode_aedat4(path: Path) -> tuple[np.ndarray, Sensor]:
    """As `faery.decode` for AEDAT 4, except that this process survives whatever the file makes of the other.

    Raises:
        DataError: as there, or faery aborted. NotInstalledError: there is no faery.
    """
    if importlib.util.find_spec("faery") is None:
        raise NotInstalledError(f"{path}: AEDAT4 needs faery; install it with: pip install 'stbp[events]'")
    command = [sys.executable, "-P", "-m", __name__, str(path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(command, env=environment, capture_output=True)
    if done.returncode == 2:
        raise DataError(done.stderr.decode(errors="replace").strip().splitlines()[-1])
    if done.returncode:
        raise DataError(f"{path}: faery cannot read it (it aborts, exit code {done.returncode}); use an undamaged copy")
    header, _, body = done.stdout.partition(b"\n")
    sensor = json.loads(header)
    return np.frombuffer(bytearray(body), EVENT), tuple(sensor) if sensor else None


def main() -> int:
    if sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    try:
        events, sensor = decode(Path(sys.argv[1]), "aedat4")
    except DataError as error:
        print(error, file=sys.stderr)
        return 2
    sys.stdout.buffer.write(json.dumps(sensor).encode() + b"\n")
    sys.stdout.buffer.write(events.tobytes())
    return 0


if __name__ == "__main__":
    sys.exit(main())
