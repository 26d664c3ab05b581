"""One walk over the images below a directory, for every function and command. It counts what it leaves out.

Without TensorFlow.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from PIL import Image

from keras_bit.files.locks import LOCK_NAME
from keras_bit.files.writing import STAGING_PREFIX
from keras_bit.wording import some

# The suffixes of Pillow's decoders, listed so that the set does not depend on plugins. Left out on purpose: formats
# that another program decodes (.eps, .ps: Ghostscript; .wmf, .emf: Windows), that Pillow only writes (.pdf, .palm) or
# only recognizes (.h5, .hdf, .grib, .bufr, .mpg, .mpeg), and numbers without a gray scale (.fit, .fits, .pfm). An .mpo
# of a camera is a JPEG with a second image; the first one is read. fmt: off
SUFFIXES = (
    ".apng",
    ".avif",
    ".avifs",
    ".blp",
    ".bmp",
    ".bw",
    ".cur",
    ".dcx",
    ".dds",
    ".dib",
    ".flc",
    ".fli",
    ".ftc",
    ".ftu",
    ".gbr",
    ".gif",
    ".icb",
    ".icns",
    ".ico",
    ".iim",
    ".im",
    ".j2c",
    ".j2k",
    ".jfif",
    ".jp2",
    ".jpc",
    ".jpe",
    ".jpeg",
    ".jpf",
    ".jpg",
    ".jpx",
    ".mpo",
    ".msp",
    ".pbm",
    ".pcd",
    ".pcx",
    ".pgm",
    ".png",
    ".pnm",
    ".ppm",
    ".psd",
    ".pxr",
    ".qoi",
    ".ras",
    ".rgb",
    ".rgba",
    ".sgi",
    ".tga",
    ".tif",
    ".tiff",
    ".vda",
    ".vst",
    ".webp",
    ".xbm",
    ".xpm",
)
# fmt: on
_KNOWN = frozenset(SUFFIXES)
KINDS = f".jpg, .png, .tif, .webp and {len(SUFFIXES) - 4} other kinds"  # for messages
# The formats of files without a suffix: those with a signature. Others, such as TGA, would match files of any kind.
MARKED = {"AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "PSD", "QOI", "TIFF", "WEBP"}
# Files and folders that operating systems, NAS devices and archives add; compared without case.
SYSTEM = frozenset(
    name.casefold()
    for name in (
        "__MACOSX",
        "@eaDir",
        "@Recycle",
        "#recycle",
        "#snapshot",
        "$RECYCLE.BIN",
        "RECYCLER",
        "System Volume Information",
        "lost+found",
        "Thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
    )
)
ARCHIVES = frozenset((".zip", ".tar", ".tgz", ".gz", ".tbz2", ".bz2", ".txz", ".xz", ".zst", ".7z", ".rar"))
SHOWN = 8  # kinds of files that a message names

# Names of files that keras_bit is still writing, in this process or another.
OWN = (LOCK_NAME, STAGING_PREFIX, ".pictures-")


class DirectoryWarning(UserWarning):
    """A note about a directory of images, for example on what is left out."""


class LeftOut:
    """Counts what a walk left out. As a string: `12 .txt, 3 .mp4, 1 hidden, __MACOSX`."""

    def __init__(self) -> None:
        self.suffixes: Counter[str] = Counter()  # files that are not images
        self.hidden = 0  # files and folders whose names begin with a dot
        self.system: Counter[str] = Counter()  # files and folders of operating systems
        self.archives: list[str] = []  # archives, which may contain images
        self.links: list[str] = []  # links to folders that are read anyway
        self.empty: list[str] = []  # folders of classes
        self.beside = 0  # images next to the folders of the classes

    def __str__(self) -> str:
        frequent = sorted(self.suffixes.items(), key=lambda item: (-item[1], item[0]))
        parts = [f"{count:,} {suffix}" for suffix, count in frequent[:SHOWN]]
        if more := sum(count for _, count in frequent[SHOWN:]):
            parts.append(f"{more:,} other files")
        if self.hidden:
            parts.append(f"{self.hidden:,} hidden")
        parts += [name if count == 1 else f"{count:,} {name}" for name, count in sorted(self.system.items())]
        if self.beside:
            parts.append(f"{self.beside:,} image{'s' * (self.beside > 1)} next to the folders")
        if self.archives:
            parts.append(f"not unpacked: {some(self.archives, SHOWN)}")
        if self.empty:
            parts.append(f"without an image: {some(self.empty, SHOWN)}")
        if self.links:
            parts.append(f"links to folders that are read anyway: {some(self.links, SHOWN)}")
        return ", ".join(parts)

    def __bool__(self) -> bool:
        return bool(str(self))

    def passes_over_file(self, name: str) -> None:
        """Counts a file that is not an image."""
        if is_archive(name):
            self.archives.append(name)
        else:
            self.suffixes[_suffix(name) or "without a suffix"] += 1

    def passes_over(self, name: str) -> bool:
        """Returns whether a file or folder of this name is left out whatever it holds; counts it."""
        if name.casefold() in SYSTEM:
            self.system[name] += 1
            return True
        self.hidden += name.startswith(".") and not name.startswith(OWN)
        return name.startswith(".")


def folders_in(directory: str | os.PathLike[str], left_out: LeftOut | None = None) -> list[str]:
    """Returns the folders in a directory, sorted, without hidden ones and those of operating systems.

    `left_out` counts those, and the images and archives next to the folders.
    """
    found = []
    with os.scandir(directory) as entries:
        for entry in entries:
            if (LeftOut() if left_out is None else left_out).passes_over(entry.name):
                continue
            if entry.is_dir():
                found.append(entry.name)
            elif left_out is not None and is_archive(entry.name):
                left_out.archives.append(entry.name)
            elif left_out is not None and is_image(entry.path):
                left_out.beside += 1
    return sorted(found)


def images_below(
    directory: str | os.PathLike[str],
    left_out: LeftOut,
    *,
    folders: Sequence[str] | None = None,
    advance: Callable[[], object] = lambda: None,
) -> Iterator[str]:
    """Yields the images at any depth, as paths relative to `directory`, in the order of names within each folder.

    Links to folders are followed, unless the walk reads those folders anyway, as in a circle. Memory holds the names of
    one folder at a time.

    Args:
        left_out: counts what is left out.
        folders: folders directly in `directory`, to search only these.
        advance: called for each image as it is found.
    """
    yield from _Walk(os.fspath(directory), left_out, advance).images(folders)


def holds_image(directory: str | os.PathLike[str]) -> bool:
    """Returns whether there is an image at any depth."""
    return next(images_below(directory, LeftOut()), None) is not None


class _Walk:
    def __init__(self, root: str, left_out: LeftOut, advance: Callable[[], object]) -> None:
        self._root, self._left_out, self._advance = root, left_out, advance
        self._real_root = os.path.realpath(root)

    def images(self, folders: Sequence[str] | None) -> Iterator[str]:
        found = self._listed("") if folders is None else [(name, True) for name in folders]
        for name, is_folder in found:
            if not is_folder:
                yield name
                continue
            trees = [self._real_root]
            path = os.path.join(self._root, name)
            if os.path.islink(path):
                # A class may be a link to another class, but not to a folder around it.
                target = os.path.realpath(path)
                if is_within(target, self._real_root):
                    self._left_out.links.append(name)
                    continue
                trees.append(target)
            yield from self._below(name, trees)

    def _below(self, folder: str, trees: list[str]) -> Iterator[str]:
        """Yields the images in a folder, at any depth.

        Args:
            folder: relative to the root.
            trees: the real paths of the root and of linked folders; it is extended.
        """
        for name, is_folder in self._listed(folder):
            name = os.path.join(folder, name)
            path = os.path.join(self._root, name)
            if is_folder and os.path.islink(path):
                target = os.path.realpath(path)
                around = (self._real_root, os.path.realpath(os.path.dirname(path)))
                if any(is_within(tree, target) for tree in trees) or any(is_within(target, one) for one in around):
                    self._left_out.links.append(name)
                    continue
                trees.append(target)
            if is_folder:
                yield from self._below(name, trees)
            else:
                yield name

    def _listed(self, folder: str) -> list[tuple[str, bool]]:
        """Returns the names in a folder in order, and whether each is a folder or an image."""
        found = []
        with os.scandir(os.path.join(self._root, folder)) as entries:
            # Not the entries themselves, which are ten times larger.
            for entry in entries:
                if self._left_out.passes_over(entry.name):
                    continue
                if entry.is_dir():
                    found.append((entry.name, True))
                elif is_image(entry.path):
                    found.append((entry.name, False))
                    self._advance()
                else:
                    self._left_out.passes_over_file(entry.name)
        return sorted(found, key=lambda one: os.fsencode(one[0]))


def is_within(folder: str, path: str) -> bool:
    """Returns whether a real path is a folder or inside it."""
    return path == folder or path.startswith(os.path.join(folder, ""))


def is_archive(name: str) -> bool:
    return _suffix(name) in ARCHIVES


def is_image(path: str) -> bool:
    """Returns whether a file is an image: by its suffix or, if it has none, by its first bytes."""
    suffix = _suffix(os.path.basename(path))
    if suffix:
        return suffix in _KNOWN
    if not os.path.isfile(path):  # opening a pipe would block
        return False
    try:
        with Image.open(path) as image:
            return image.format in MARKED
    except MemoryError:
        raise
    except Image.DecompressionBombError:
        return True  # counts as an image; reading it reports what is wrong
    except Exception:  # a plugin may raise anything for other kinds of files
        return False


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()
