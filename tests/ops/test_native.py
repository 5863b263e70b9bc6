"""The loader of the compiled kernels; what they compute is tested with their operators."""

import logging
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stbp.ops import native

COMPILER = shutil.which(os.environ.get("CXX") or "c++") or shutil.which("g++") or shutil.which("clang++")
BUILT = sorted(Path(native.__file__).parent.glob("*.so"))
CPUINFO = Path("/proc/cpuinfo")
V3 = {"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe"}  # x86-64-v3 as the Linux kernel spells it
V4 = V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}

needs_kernels = pytest.mark.skipif(not BUILT, reason="no kernels are built here")


def report(choice: str | None, code: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in a process of its own, with STBP_KERNELS set to `choice`."""
    environment = {key: value for key, value in os.environ.items() if key != "STBP_KERNELS"}
    if choice is not None:
        environment["STBP_KERNELS"] = choice
    code = f"from stbp.ops import native\n{code}"
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch):
    """The loader as in a new process, before and after the test."""
    cached = (native._load, native._usable, native.warn_once)
    monkeypatch.delenv("STBP_KERNELS", raising=False)
    for function in cached:
        function.cache_clear()
    yield
    for function in cached:
        function.cache_clear()


@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler here")
def test_where_there_is_a_compiler_there_are_kernels_and_the_best_are_loaded(forgetful):
    assert native.kernels() is not None, native.why_not()
    assert native.isa() == native.supported()[0]
    assert native.why_not() == ""


@needs_kernels
@pytest.mark.skipif(platform.machine() != "x86_64" or not CPUINFO.exists(), reason="needs Linux on x86-64")
def test_the_loaded_instruction_set_is_what_the_processor_promises(forgetful):
    flags = set(re.findall(r"^flags\s*:(.*)$", CPUINFO.read_text(), re.MULTILINE)[0].split())
    assert native.isa() == ("avx512" if flags >= V4 else "avx2" if flags >= V3 else "baseline")


@pytest.mark.slow
@needs_kernels
@pytest.mark.parametrize("isa", native.supported())
def test_each_instruction_set_can_be_chosen_and_makes_teams_of_the_size_asked_for(isa):
    code = """
import ctypes, torch
torch.set_num_threads(1)
library = native.kernels()
library.stbp_isa.restype = ctypes.c_char_p
print(native.isa(), library.stbp_isa().decode(), *[library.stbp_threads(n) for n in (1, 2, 3, 1)])
"""
    done = report(isa, code)
    assert done.stdout.split() == [isa, isa, "1", "2", "3", "1"], done.stderr


@pytest.mark.slow
def test_off_means_no_kernels_and_no_warning():
    done = report("off", "native.warn_once(); print(native.kernels(), native.isa()); print(native.why_not())")
    assert done.stdout.splitlines()[0] == "None None"
    assert "STBP_KERNELS=off" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("choice", ["avx1024", "AUTO"])
def test_an_unknown_choice_is_an_error_that_names_the_possible_ones(choice):
    done = report(choice, "native.kernels()")
    possible = ", ".join(["auto", *native.supported(), "off"])
    assert f"ValueError: STBP_KERNELS must be one of {possible} here; got '{choice}'" in done.stderr


def test_an_instruction_set_the_processor_lacks_is_an_error(forgetful, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(native, "_usable", lambda: (("baseline",), ""))
    monkeypatch.setenv("STBP_KERNELS", "avx512")
    with pytest.raises(ValueError, match=r"must be one of auto, baseline, off here; got 'avx512'"):
        native.kernels()


@needs_kernels
def test_a_process_that_ran_a_kernel_has_one_openmp_runtime():
    done = report(None, "native.kernels().stbp_threads(2); print(*native.openmp_runtimes(), sep='\\n')")
    assert len(done.stdout.splitlines()) == 1, done.stdout + done.stderr


@needs_kernels
@pytest.mark.skipif(shutil.which("readelf") is None, reason="needs readelf")
@pytest.mark.parametrize("library", BUILT, ids=lambda path: path.stem)
def test_no_library_brings_an_openmp_or_cpp_runtime(library):
    listing = subprocess.run(["readelf", "-d", library], capture_output=True, text=True, check=True).stdout
    needed = re.findall(r"NEEDED.*\[(.*)\]", listing)
    assert needed, listing
    assert not [name for name in needed if re.match(r"lib(gomp|i?omp|stdc\+\+)", name)]


def test_without_libraries_the_reason_is_logged_once(
    forgetful, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(native, "_FOLDER", tmp_path / "stbp" / "ops" / "native")
    with caplog.at_level(logging.WARNING, "stbp"):
        native.warn_once()
        native.warn_once()
    assert native.kernels() is None
    assert native.isa() is None
    assert native.supported() == []
    assert [record.getMessage() for record in caplog.records] == [native.why_not()]
    assert "no C++ compiler was found when stbp was installed" in native.why_not()
    assert "pip install --force-reinstall --no-deps stbp" in native.why_not()


def test_a_library_that_cannot_be_loaded_is_the_reason(forgetful, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    folder = tmp_path / "stbp" / "ops" / "native"
    folder.mkdir(parents=True)
    (folder / "stbp_cpu_baseline.so").write_bytes(b"no library")
    monkeypatch.setattr(native, "_FOLDER", folder)
    assert native.kernels() is None
    assert "cannot be loaded" in native.why_not()
    assert "stbp_cpu_baseline.so" in native.why_not()


@needs_kernels
def test_without_an_openmp_runtime_there_are_no_kernels_and_a_reason(forgetful, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(native, "_share_openmp", lambda: False)
    assert native.kernels() is None
    assert "no OpenMP runtime" in native.why_not()


@needs_kernels
def test_kernels_older_than_their_sources_are_reported(
    forgetful, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    folder = tmp_path / "stbp" / "ops" / "native"
    folder.mkdir(parents=True)
    (tmp_path / "CMakeLists.txt").touch()
    source = folder / "cpu.cpp"
    source.touch()
    for library in BUILT:
        shutil.copy(library, folder)
    monkeypatch.setattr(native, "_FOLDER", folder)
    for moment, warnings in ((0, 0), (4e9, 1)):
        os.utime(source, (moment, moment))
        native._load.cache_clear()
        with caplog.at_level(logging.WARNING, "stbp"):
            assert native.kernels() is not None
        assert len([record for record in caplog.records if "make kernels" in record.getMessage()]) == warnings
