"""Files in folders, one folder a class: images or recordings of event cameras. What a file is, its content tells.

`train/CLASS/*` and `test/CLASS/*`; or `CLASS/*` alone, where the split is drawn later.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from PIL import Image, UnidentifiedImageError

from stbp.data.error import DataError
from stbp.data.events.formats.reading import format_of

Kind = Literal["images", "recordings"]
Skipped = dict[str, list[str]]
"""Names of the files that are not taken, by the reason in a few words."""

# What the folders of the two splits may be called, in small or capital letters; of several, the first counts.
SPLITS = {
    "training": ("train", "training"),
    "test": ("test", "testing", "val", "valid", "validation"),
}
SHAPE = (
    "train/CLASS/* and test/CLASS/*, or CLASS/* alone, where a test set is drawn; the files are images or recordings of"
    " event cameras, in any format and under any names"
)
HEAD = 4096
"""Bytes that tell the format of a recording."""


class Sample(NamedTuple):
    """A file that is taken, and the folder that it lies in: its class."""

    label: str
    path: Path
    # The name of its format.
    format: str
    # Columns and rows of an image, from its header; None of a recording.
    size: tuple[int, int] | None

    @property
    def name(self) -> str:
        return f"{self.label}/{self.path.name}"


@dataclass(frozen=True)
class Split:
    """The samples of one split, by class and file name, and the files beside them that are no samples."""

    folder: Path
    samples: list[Sample]
    skipped: Skipped

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, sorted."""
        return tuple(sorted({sample.label for sample in self.samples}))


@dataclass(frozen=True)
class Tree:
    """A folder of files in folders of classes: training and test split, or one split that is yet to be divided."""

    kind: Kind
    splits: tuple[Split, ...]
    # Folders of splits that are not used, for another one goes before them.
    unused: tuple[str, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, the same in every split."""
        return self.splits[0].classes


def split_folder(folder: Path, split: str) -> Path | None:
    """The folder of a split, under any of the names in `SPLITS`; None if there is none."""
    found = {path.name.lower(): path for path in _folders(folder)}
    return next((found[name] for name in SPLITS[split] if name in found), None)


def is_tree(folder: Path) -> bool:
    """True where the folder holds a training or a test split."""
    return any(split_folder(folder, split) for split in SPLITS)


def look(folder: Path) -> Tree | None:
    """The samples in a folder; None where it holds no folders.

    Raises:
        DataError: the test split is missing but there are other folders, a class is not in both splits or has no file
            that can be taken, or images and recordings are mixed.
    """
    train, test = (split_folder(folder, split) for split in SPLITS)
    if train is None and test is None:
        splits = (_look(folder),) if _folders(folder) else ()
    else:
        splits = tuple(_look(path) for path in _both(folder, train, test))
    if not splits:
        return None
    named = [name for names in SPLITS.values() for name in names]
    unused = [p.name for p in _folders(folder) if p.name.lower() in named and p not in (train, test)]
    kinds: dict[Kind, Sample] = {}
    for sample in (sample for split in splits for sample in split.samples):
        kinds.setdefault("recordings" if sample.size is None else "images", sample)
    if len(kinds) > 1:
        raise DataError(
            f"{folder}: holds images ({kinds['images'].path}) and recordings ({kinds['recordings'].path}); keep each in"
            " a folder of its own"
        )
    _check_classes(splits)
    return Tree(next(iter(kinds)), splits, tuple(unused))


def _both(folder: Path, train: Path | None, test: Path | None) -> tuple[Path, ...]:
    """Training and test folder; the former alone where nothing else is there that could be meant for a test set."""
    others = [path for path in _folders(folder) if path != train]
    if train is not None and (test is not None or not others):
        return (train,) if test is None else (train, test)
    absent = "training" if train is None else "test"
    names = ", ".join(f"{name}/" for name in SPLITS[absent])
    raise DataError(f"{folder}: no folder of {absent} samples (looked for {names}); it must hold {SHAPE}")


def _check_classes(splits: tuple[Split, ...]) -> None:
    """Every folder of a class must be in both splits and hold a sample."""
    folders = [{path.name for path in _folders(split.folder)} for split in splits]
    odd = sorted(folders[0] ^ folders[-1])
    if odd:
        here, there = (split.folder for split in (splits if odd[0] in folders[0] else reversed(splits)))
        raise DataError(f"{there}: has no class {odd[0]!r}, but {here} has; both must have the same folders of classes")
    if not folders[0]:
        raise DataError(f"{splits[0].folder}: holds no folders of classes; the folder must hold {SHAPE}")
    for split, names in zip(splits, folders, strict=True):
        check_kept(split, (sample.label for sample in split.samples), names, split.skipped)


def check_kept(split: Split, kept: Iterable[str], classes: Iterable[str], skipped: Mapping[str, list[str]]) -> None:
    """Raise DataError if of one of the classes no sample was kept; `kept` are the labels of those that were."""
    for lost in sorted(set(classes) - set(kept)):
        why = next((f" ({reason})" for reason, names in skipped.items() if any(_in(lost, n) for n in names)), "")
        raise DataError(
            f"{split.folder / lost}: holds no image and no recording that can be read{why}; put some there or take the"
            " class away"
        )


def _in(label: str, name: str) -> bool:
    return name.startswith(f"{label}/")


def _folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _look(folder: Path) -> Split:
    skipped: Skipped = defaultdict(list)
    samples: list[Sample] = []
    for path in sorted(path for path in folder.iterdir() if not path.name.startswith(".")):
        if not path.is_dir():
            skipped["not in the folder of a class"].append(path.name)
            continue
        for file in sorted(file for file in path.iterdir() if not file.name.startswith(".")):
            found = _sample(path.name, file)
            if isinstance(found, Sample):
                samples.append(found)
            else:
                skipped[found].append(f"{path.name}/{file.name}")
    return Split(folder, samples, dict(skipped))


def _sample(label: str, file: Path) -> Sample | str:
    """The file as a sample, or in a few words why it is none."""
    if not file.is_file():
        return "not a file"
    try:
        with file.open("rb") as opened:
            head = opened.read(HEAD)
        form = format_of(head, file)
        if form is not None:
            return Sample(label, file, form, None)
        if not head:
            return "empty"
        with Image.open(file) as image:
            return Sample(label, file, image.format or "image", image.size)
    except UnidentifiedImageError:
        return "neither image nor recording"
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError):
        return "damaged or not readable"


def told(skipped: Skipped) -> str:
    """Number of files skipped for each reason, with the first names: `2 empty (a/1.png, a/2.png)`."""
    return "; ".join(f"{len(names)} {why} ({some(names)})" for why, names in skipped.items())


def some(names: list[str], most: int = 3) -> str:
    """The first of some names, with dots where there are more."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
