"""For test modules that run on every instruction set; not in conftest.py, which is read before shapes are checked."""

from collections.abc import Iterator

import pytest

from stbp.ops import native


@pytest.fixture(params=[*native.supported(), "off"])
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A test runs on every instruction set, and without kernels."""
    monkeypatch.setenv("STBP_KERNELS", request.param)
    native._load.cache_clear()
    yield request.param
    native._load.cache_clear()
