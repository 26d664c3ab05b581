"""Matches names, of a data set's folders or typed by a person, with the classes of a model."""

import difflib
import reprlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from keras_bit import wording
from keras_bit.files import json_text
from keras_bit.labels import CLASS_LISTS, imagenet_labels, labels_of_checkpoint
from keras_bit.network.config import BitConfig
from keras_bit.wording import composed

SHOWN = 20  # folders that an error lists
CLOSEST = 3  # labels suggested for each
CLASSES = 5  # labels of the model that an error lists
ALLOWED = "a label, the number of a class, a list of these, or null to leave the folder out"
UNKNOWN = "? "  # marks unknown folders in `template`; it is not a label, so an unedited map is an error


def labels_of(config: BitConfig) -> tuple[str, ...]:
    """Returns the model's labels in the order of its outputs; ImageNet's for as many unnamed classes."""
    labels = labels_of_checkpoint(config.id2label)
    if labels is None:
        return tuple(name for _, name in imagenet_labels(config.num_labels))
    return tuple(labels[index] for index in range(config.num_labels))


def match(
    folders: Sequence[str], config: BitConfig, class_map: Mapping[str, Any] | None = None
) -> list[tuple[int, ...] | None]:
    """Returns for each folder the model's classes that count as right, or `None` to leave it out.

    The `class_map` decides first, then a label that equals the folder's name (accents may be encoded as on macOS),
    then, for a model with ImageNet's classes, the wordnet id.

    Args:
        folders: their names.
        config: the model's `BitConfig`.
        class_map: folder to a label of the model, to a list of labels that all count as right, or to `None`. A label
            may also be a wordnet id or a class's number, because two classes of ImageNet are called "crane".

    Raises:
        ValueError: folders match nothing or several classes, or `class_map` names unknown folders or labels. One error
            lists all, with the closest labels.
    """
    mapped = {composed(folder): said for folder, said in (class_map or {}).items()}
    names = _Names(config)
    there = set(map(composed, folders))
    problems = [_Problem(folder, "is not a folder", folder, folders) for folder in mapped if folder not in there]
    matched: list[tuple[int, ...] | None] = []
    for folder in folders:
        said = mapped.get(composed(folder), folder)
        found = None if said is None else names.find(folder, said if isinstance(said, list) else [said])
        if isinstance(found, _Problem):
            problems.append(found)
        else:
            matched.append(found)
    if problems:
        raise ValueError(
            f"Every folder must be a class of the model. {wording.some(problems, SHOWN, '; ')}. The model's "
            f"classes: {wording.some(map(repr, names.labels), CLASSES)}. Use the checkpoint that was trained on these "
            f"folders, or map the folders in `class_map` to {ALLOWED}; as JSON: "
            '{"folder": "label", "another": 7, "any of two": ["label", 8], "left out": null}.'
        )
    return matched


def find_class(name: str, config: BitConfig) -> int:
    """Returns the number of the class that a person means.

    It tries, in this order: a label that equals `name`; for ImageNet's classes, a wordnet id; the number of a class;
    and a label, or one of its several names, that differs only in case or in `_` or `-` for spaces.

    Args:
        name: the text that was typed.
        config: the model's `BitConfig`.

    Raises:
        ValueError: `name` is none of these, or means several classes; the message has the closest labels, or those
            classes.
    """
    names = _Names(config)
    allowed = f"a label of the model or a number from 0 to {len(names.labels) - 1}"
    several = names.exact.get(composed(name), [])
    if not several and name in names.wordnet:
        return names.wordnet[name]
    if not several and name.isdecimal():
        if int(name) < len(names.labels):
            return int(name)
        raise ValueError(f"`name` must be {allowed}, got {name}.")
    several = several or names.loose().get(_loose(name), [])
    if len(several) == 1:
        return several[0]
    if several:
        shown = wording.some((f"{index} ({names.labels[index]})" for index in several), SHOWN)
        raise ValueError(f"`name` {name!r} means several classes: {shown}. Pass the number of one.")
    close = [f"{names.exact[composed(label)][0]} ({label})" for label in _close(name, names.labels)]
    closest = f"The closest: {', '.join(close)}" if close else f"The first: {wording.some(names.labels, CLOSEST)}"
    raise ValueError(f"`name` must be {allowed}, got {name!r}. {closest}.")


def shown_names(folders: Sequence[str], config: BitConfig) -> list[str]:
    """Returns the folders' names, with the label's first name before a wordnet id: `tench (n01440764)`."""
    names = _Names(config)
    return [
        f"{names.labels[names.wordnet[folder]].split(',')[0]} ({folder})" if folder in names.wordnet else folder
        for folder in folders
    ]


def read(file: str | Path) -> dict[str, Any]:
    """Reads the class map in a JSON file.

    Raises:
        FileNotFoundError: the file does not exist.
        OSError: it cannot be read.
        ValueError: it is not JSON, or not a map from folders to labels, lists of labels, or null.
    """
    try:
        found = json_text.parse(Path(file).read_text(encoding="utf-8"), object_pairs_hook=_once)
    except FileNotFoundError:
        raise FileNotFoundError(f"The class map {str(file)!r} does not exist. Check the path.") from None
    except OSError as error:
        raise OSError(
            f"The class map {str(file)!r} cannot be read: {error.strerror}. Check the path and its permissions."
        ) from error
    except ValueError as error:
        raise ValueError(f"The class map {str(file)!r} is not a JSON file: {error}. Correct the file.") from error
    if not isinstance(found, dict):
        raise ValueError(f"The class map {str(file)!r} must be a JSON object, got {type(found).__name__}.")
    for folder, said in found.items():
        one = (str, int)
        several = isinstance(said, list) and said and all(type(label) in one for label in said)
        if not (said is None or type(said) in one or several):
            raise ValueError(
                f"The class map {str(file)!r} must give {folder!r} a label, a list of labels, or null, got "
                f"{reprlib.repr(said)}."
            )
    return found


def template(folders: Sequence[str], config: BitConfig) -> dict[str, str]:
    """Returns a class map to complete by hand.

    Folders that match get their class's label, even if they differ in case or in `_` or `-` for spaces, or are one of
    the label's several names. The others get a text that begins with `? ` and has the closest labels; it must be
    edited.
    """
    names = _Names(config)
    return {folder: names.suggest(folder) for folder in folders}


class _Problem(NamedTuple):
    """Why a folder is not a class, possibly with names to find the closest ones to `name`."""

    folder: str
    text: str
    name: str = ""
    among: Sequence[str] = ()

    def __str__(self) -> str:
        close = _close(self.name, self.among)  # computed here, because it is slow and not all problems are shown
        closest = f" (closest: {', '.join(map(repr, close))})" if close else ""
        return f"{self.folder!r} {self.text}{closest}"


class _Names:
    """The names of a model's classes."""

    def __init__(self, config: BitConfig) -> None:
        self.labels = labels_of(config)
        self.exact = _by_name((index, composed(label)) for index, label in enumerate(self.labels))
        self.wordnet: dict[str, int] = {}
        if len(self.labels) in CLASS_LISTS:
            known = imagenet_labels(len(self.labels))
            same = sum(
                ours.split(",")[0] == label.split(",")[0] for (_, ours), label in zip(known, self.labels, strict=True)
            )
            # Other models may have a thousand classes too, and lists of ImageNet differ in a few names.
            if same > len(known) / 2:
                self.wordnet = {wordnet_id: index for index, (wordnet_id, _) in enumerate(known)}

    def find(self, folder: str, said: Sequence[str | int]) -> "tuple[int, ...] | _Problem":
        """Returns the classes, or the problem."""
        found = []
        for label in said:
            several = self.exact.get(composed(label), []) if isinstance(label, str) else []
            if type(label) is int and 0 <= label < len(self.labels):
                found.append(label)
            elif len(several) == 1:
                found.append(several[0])
            elif several:
                numbers = " and ".join(map(str, several))
                text = f"is {label!r}, the name of the classes {numbers} (use the number in a class map)"
                return _Problem(folder, text)
            elif label in self.wordnet:
                found.append(self.wordnet[label])
            else:
                what = "matches no label" if label == folder else f"is mapped to {label!r}, which is not a label"
                return _Problem(folder, what, str(label), self.labels)
        return tuple(found)

    def loose(self) -> dict[str, list[int]]:
        """Maps each name of the labels, in a loose spelling, to its classes."""
        return _by_name((index, name) for index, label in enumerate(self.labels) for name in _loose_names(label))

    def suggest(self, folder: str) -> str:
        found = self.find(folder, [folder])
        if not isinstance(found, _Problem):
            return self.labels[found[0]] if self._is_unique(found[0]) else folder
        several = self.loose().get(_loose(folder), [])
        if len(several) == 1 and self._is_unique(several[0]):
            return self.labels[several[0]]
        if folder.isdecimal() and int(folder) < len(self.labels):
            return f"{UNKNOWN}{int(folder)} ({self.labels[int(folder)]})"  # numbers may not count from 0
        return UNKNOWN + " | ".join(_close(folder, self.labels))

    def _is_unique(self, index: int) -> bool:
        return self.exact[composed(self.labels[index])] == [index]


def _by_name(numbered: Iterable[tuple[int, str]]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for index, name in numbered:
        if index not in found.setdefault(name, []):
            found[name].append(index)
    return found


def _loose(name: str) -> str:
    return " ".join(composed(name).casefold().replace("_", " ").replace("-", " ").split())


def _loose_names(label: str) -> list[str]:
    return [_loose(label), *(_loose(part) for part in label.split(","))]


def _close(name: str, labels: Sequence[str]) -> list[str]:
    """Returns the closest labels, compared with each of a label's several names."""
    spelled: dict[str, str] = {}
    for label in labels:
        for part in _loose_names(label):
            spelled.setdefault(part, label)
    close = difflib.get_close_matches(_loose(name), list(spelled), 2 * CLOSEST)
    return list(dict.fromkeys(spelled[part] for part in close))[:CLOSEST]


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuses repeated keys, of which JSON would silently keep the last."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = sorted(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"{wording.some(map(repr, twice), SHOWN)} occurs twice")
    return found
