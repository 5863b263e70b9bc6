"""The compiled CPU kernels: found, chosen and loaded.

CMake builds one library per instruction set, `stbp_cpu_<isa>.so`, beside this file. They are linked to no OpenMP
runtime: a second one in a process would fight torch's for the cores, so their calls are bound to torch's when loaded.
"""

import ctypes
import functools
import logging
import os
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

ISAS = ("avx512", "avx2", "baseline")  # best first
_FOLDER = Path(__file__).parent
_OPENMP = r"lib(gomp|iomp5|omp)(-[0-9a-f]+)?\.(so[.\d]*|dylib)"


class _Loaded(NamedTuple):
    library: ctypes.CDLL | None
    isa: str | None = None
    why_not: str = ""


class _Symbol(ctypes.Structure):  # Dl_info of dlfcn.h
    _fields_ = (("file", ctypes.c_char_p), ("unused", ctypes.c_void_p * 3))


def kernels() -> ctypes.CDLL | None:
    """The library of kernels, loaded once per process; None where there is none or it is switched off: `why_not()`.

    Which one is the best that this processor has, or `STBP_KERNELS`: auto, avx512, avx2, baseline or off.

    Raises:
        ValueError: `STBP_KERNELS` is none of these, or an instruction set that was not built or the processor lacks.
    """
    return _load().library


def call(name: str, *arguments: Any) -> Any:
    """Call a function of the loaded library.

    Raises:
        RuntimeError: there is none.
    """
    library = kernels()
    if library is None:
        raise RuntimeError(why_not())
    return getattr(library, name)(*arguments)


def names(function: str) -> tuple[str, ...]:
    """Names that a function of the loaded library lists, in the order of their numbers.

    Raises:
        RuntimeError: there is no library.
    """
    library = kernels()
    if library is None:
        raise RuntimeError(why_not())
    return _listed(library, function)


@functools.cache
def _listed(library: ctypes.CDLL, function: str) -> tuple[str, ...]:
    return tuple(ctypes.CFUNCTYPE(ctypes.c_char_p)((function, library))().decode().split(","))


def isa() -> str | None:
    """The instruction set of the loaded kernels, None without kernels."""
    return _load().isa


def curves() -> tuple[str, ...]:
    """Names of the surrogates that the loaded kernels know, in the order of their numbers; none without kernels."""
    return names("stbp_curves") if kernels() else ()


def supported() -> list[str]:
    """The instruction sets whose kernels are built and that this processor has, best first."""
    return list(_usable()[0])


def why_not() -> str:
    """Reason why there are no kernels, and how to get them, in one sentence; empty if they are loaded."""
    return _load().why_not


@functools.cache
def warn_once() -> None:
    """Log why there are no kernels, once per process; not if they were switched off on purpose."""
    if kernels() is None and _wanted() != "off":
        logging.getLogger("stbp").warning("%s", why_not())


def openmp_runtimes() -> list[str]:
    """The files of the OpenMP runtimes that this process has mapped: one, unless something brought its own."""
    if sys.platform == "darwin":
        dyld = ctypes.CDLL(None)
        dyld._dyld_get_image_name.restype = ctypes.c_char_p
        files = {os.fsdecode(dyld._dyld_get_image_name(i) or b"") for i in range(dyld._dyld_image_count())}
    else:
        maps = Path("/proc/self/maps")
        lines = maps.read_text().splitlines() if maps.exists() else []
        files = {line.split(maxsplit=5)[-1] for line in lines if line.count("/")}
    return sorted(file for file in files if re.fullmatch(_OPENMP, Path(file).name))


def _path(isa: str) -> Path:
    return _FOLDER / f"stbp_cpu_{isa}.so"


def _wanted() -> str:
    return os.environ.get("STBP_KERNELS") or "auto"


@functools.cache
def _load() -> _Loaded:
    wanted = _wanted()
    if wanted == "off":
        return _Loaded(None, why_not="the compiled kernels are switched off by STBP_KERNELS=off")
    usable, why = _usable()
    if wanted not in ("auto", *usable):
        choices = ", ".join(("auto", *usable, "off"))
        raise ValueError(f"STBP_KERNELS must be one of {choices} here; got {wanted!r}{why and f' ({why})'}")
    if not usable:
        return _Loaded(None, why_not=why)
    isa = usable[0] if wanted == "auto" else wanted
    _warn_if_stale(_path(isa))
    return _Loaded(ctypes.CDLL(str(_path(isa))), isa)


@functools.cache
def _usable() -> tuple[tuple[str, ...], str]:
    """The instruction sets to choose from; if there are none, why."""
    if sys.platform == "win32":
        return (), "no compiled kernels: they are not built on Windows"
    built = [isa for isa in ISAS if _path(isa).is_file()]
    if "baseline" not in built:
        return (), f"no compiled kernels: {_not_built()}"
    try:
        if not _share_openmp():
            return (), "no compiled kernels: torch has loaded no OpenMP runtime that they could share"
        library = ctypes.CDLL(str(_path("baseline")))
    except OSError as error:
        return (), f"the compiled kernels cannot be loaded: {error}; compile them again, with g++ (on macOS clang)"
    return tuple(isa for isa in built if library.stbp_has_isa(isa.encode())), ""


def _in_checkout() -> bool:
    return (_FOLDER.parents[2] / "CMakeLists.txt").is_file()


def _not_built() -> str:
    if _in_checkout():
        return "none are built in this checkout; install a C++ compiler (g++, on macOS clang) and run `make kernels`"
    return (
        "no C++ compiler was found when stbp was installed; install one (g++, on macOS clang) and run "
        "`pip install --force-reinstall --no-deps stbp`, from a checkout `pip install .`"
    )


def _warn_if_stale(library: Path) -> None:
    package = _FOLDER.parents[1]
    sources = [*package.rglob("*.h"), *package.rglob("cpu.cpp")] if _in_checkout() else []
    if any(source.stat().st_mtime > library.stat().st_mtime for source in sources):
        logging.getLogger("stbp").warning("the compiled kernels are older than their sources: run `make kernels`")


def _share_openmp() -> bool:
    """Let what is loaded from here on call the OpenMP runtime that torch calls; False if torch calls none."""
    import torch

    found = _Symbol()
    try:
        symbol = ctypes.cast(ctypes.CDLL(torch._C.__file__).omp_get_max_threads, ctypes.c_void_p)
    except AttributeError:
        return False
    ctypes.CDLL(None).dladdr(symbol, ctypes.byref(found))
    ctypes.CDLL(os.fsdecode(found.file or b""), mode=os.RTLD_NOLOAD | ctypes.RTLD_GLOBAL)
    return True
