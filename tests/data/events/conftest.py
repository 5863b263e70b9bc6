import zipfile
from pathlib import Path

import pytest

from ..conftest import REAL_DATA


@pytest.fixture(scope="session")
def samples() -> Path:
    """One real recording in each of some formats."""
    folder = Path(REAL_DATA or "") / "event-samples"
    if not REAL_DATA or not folder.is_dir():
        pytest.skip("STBP_DATA names no folder with event-samples/")
    return folder


@pytest.fixture(scope="session")
def real() -> Path:
    """The 1,100 recordings of N-MNIST, in two zip files."""
    folder = Path(REAL_DATA or "") / "n-mnist-1100"
    if not REAL_DATA or not folder.is_dir():
        pytest.skip("STBP_DATA names no folder with n-mnist-1100/")
    return folder


@pytest.fixture(scope="session")
def recordings(real: Path) -> dict[str, bytes]:
    """The content of every real recording of N-MNIST, by name."""
    found: dict[str, bytes] = {}
    for name in ("Train", "Test"):
        with zipfile.ZipFile(real / f"{name}.zip") as archive:
            found |= {member: archive.read(member) for member in archive.namelist() if member.endswith(".bin")}
    return found
