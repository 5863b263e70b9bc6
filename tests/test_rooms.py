"""Rooms of the package: who may import whom; first words of docstrings."""

import ast
import re
from pathlib import Path

import stbp

PACKAGE = Path(stbp.__file__).parent
FLOORS = (
    ("names",),
    ("config",),
    ("files",),
    ("ops",),
    ("loss",),
    ("nn", "data"),
    ("train",),
    ("plot",),
    ("camera", "export"),
    ("experiments",),
    ("paper", "bench"),
    ("cli",),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in PACKAGE.rglob("*.py")}


def imported(path: Path) -> set[str]:
    """Modules of the package that a file imports, wherever in it; the package itself, for its version, not counted."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports in full"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else node.module or "" for name in names}
    return {name for name in found if name.startswith("stbp.")}


def test_a_room_imports_only_from_rooms_below_it():
    wrong = []
    for name, path in MODULES.items():
        room = ([*name.split("."), ""])[1]
        for other in imported(path) if room else ():
            below = other.split(".")[1]
            if below != room and not FLOOR[below] < FLOOR[room]:
                wrong.append(f"{name} imports {other}")
    assert not wrong, wrong


def test_no_file_imports_itself_by_a_circle():
    """Imports inside functions count too: none is there to hide a circle."""
    arrows = {name: imported(path) & set(MODULES) for name, path in MODULES.items()}
    open_, done = [], set()

    def visit(name: str) -> None:
        assert name not in open_, " -> ".join([*open_[open_.index(name) :], name])
        if name in done:
            return
        open_.append(name)
        for other in arrows[name]:
            visit(other)
        done.add(open_.pop())

    for name in MODULES:
        visit(name)


def test_there_are_few_rooms():
    rooms = [path for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()]
    assert len(rooms) <= 16
    assert {path.stem for path in rooms} - {"__init__"} <= set(FLOOR)


def test_docstrings_begin_with_what_the_thing_is():
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    wrong = []
    for name, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            words = re.findall(r"\w+", (ast.get_docstring(node) or "") if isinstance(node, kinds) else "")
            if words and words[0] in ("Of", "What", "Whether", "Which", "How", "Why"):
                wrong.append(f"{name}.{getattr(node, 'name', '')}: {' '.join(words[:6])}")
    assert not wrong, wrong
