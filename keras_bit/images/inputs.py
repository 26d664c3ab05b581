"""Turns any kind of image (a file, its bytes, a PIL image, an array) into pixels: decoded, upright and checked."""

import contextlib
import io
import os
import warnings
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from keras_bit.images import base64_text, jpeg_scans, png_chunks
from keras_bit.images.array_likes import as_array, sequence_of
from keras_bit.wording import LONGEST_SHOWN, shortened

DATA_FORMATS = LAST, FIRST = ("channels_last", "channels_first")
BEGIN = 300  # bytes of a file, which tell whether it is base64 text
GRAY = "none"  # transformers' name for arrays without channels, (height, width)

ORIENTATIONS = ("upright", "ignore")
TURNS = {  # by the value of the orientation tag; as `PIL.ImageOps.exif_transpose` has them
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

Encoded = bytes | bytearray | memoryview
AnyImage = Image.Image | np.ndarray | bytes | str | os.PathLike


def each(
    images: AnyImage | Sequence[AnyImage], input_data_format: str | None, convert_rgb: bool, orientation: str
) -> Iterator[tuple[str, Image.Image | np.ndarray, str]]:
    """Yields each image in `images` with its name for errors and its order of axes.

    Args:
        images: one image or a sequence of them: files, their bytes, PIL images, arrays in 3 dimensions, or in 4 for a
            batch, or in 2 for gray.
        input_data_format: order of the arrays; `None` guesses it from the number of channels; "none" is `(height,
            width)`, or `(batch, height, width)`.
        convert_rgb: whether every image becomes RGB; alpha is dropped.
        orientation: "upright" or "ignore", for what is encoded.

    Yields:
        The name, and the `(height, width, channels)` array, uint8 from files and PIL images, else of the array's type;
        with `convert_rgb`, files and PIL images stay PIL images, of the mode RGB. Last, the data format in which an
        array came; "channels_last" for files and PIL images.

    Raises:
        ValueError, TypeError, OSError: as `BitImageProcessor.__call__` says.
    """
    several = sequence_of(images)
    if several is None:
        yield from _images_in("`images`", images, input_data_format, convert_rgb, orientation)
        return
    for index, image in enumerate(several):
        yield from _images_in(f"`images[{index}]`", image, input_data_format, convert_rgb, orientation)


def _images_in(
    name: str, image: object, input_data_format: str | None, convert_rgb: bool, orientation: str
) -> Iterator[tuple[str, Image.Image | np.ndarray, str]]:
    """Returns the images in one element of `images`: one, or those of a batch."""
    if isinstance(image, (str, os.PathLike)):
        name = f"{name} ({shortened(os.fspath(image))})"
    if isinstance(image, (str, os.PathLike, Encoded)):
        yield name, _pixels(name, read(name, image, orientation), convert_rgb), LAST
    elif isinstance(image, Image.Image):
        yield name, _pixels(name, _load(name, image, None), convert_rgb), LAST
    elif hasattr(image, "__array__"):
        array = as_array(name, image)
        _check_array(name, array, input_data_format)
        if array.ndim == 2 or input_data_format == GRAY:
            array, input_data_format = array[..., None], LAST
        if array.ndim == 3:
            yield name, *_from_array(name, array, input_data_format, convert_rgb)
        else:
            for index, one in enumerate(array):
                image_name = f"{name[:-1]}[{index}]`"
                yield image_name, *_from_array(image_name, one, input_data_format, convert_rgb)
    else:
        raise TypeError(
            f"{name} must be a PIL image, an array, an encoded file's bytes or a path, got "
            f"{type(image).__name__}. Do not nest lists of images; convert lists of numbers with `numpy.asarray`."
        )


def _check_array(name: str, array: np.ndarray, input_data_format: str | None) -> None:
    if input_data_format == GRAY and array.ndim not in (2, 3):
        raise ValueError(
            f"{name} must have 2 dimensions, (height, width), or 3 for a batch, with `input_data_format='none'`, got "
            f"the shape {array.shape}. Leave `input_data_format` out for an array with channels."
        )
    if array.ndim not in (2, 3, 4):
        raise ValueError(
            f"{name} must have 3 dimensions, or 4 for a batch, or 2 for a gray image, got the shape {array.shape}. "
            "Reshape it, for instance to (height, width, channels)."
        )
    if array.size == 0:
        raise ValueError(f"{name} is empty: its shape is {array.shape}. Leave it out.")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"{name} holds values that are not finite (NaN or infinity). Replace them.")


def read(
    name: str, source: Encoded | str | os.PathLike, orientation: str, max_pixels: int | None = None
) -> Image.Image:
    """Reads and decodes an image file.

    Args:
        name: the name of the image in errors.
        source: the path of the file, or the bytes in it.
        orientation: "upright" turns the image as its orientation tag says, exactly as `PIL.ImageOps.exif_transpose`: by
            Exif, else by XMP. "ignore" leaves it as `Image.open` returns it. An unreadable tag, or one that is not 2 to
            8, means as stored.
        max_pixels: the most pixels, below Pillow's limit; `None` is Pillow's limit.

    Returns:
        The decoded image, of any mode.

    Raises:
        ValueError: it is not an image that Pillow reads, is base64 text, is damaged, or has too many pixels or JPEG
            scans.
        FileNotFoundError, IsADirectoryError, OSError: the file cannot be read.
    """
    contents = _contents(name, source) if isinstance(source, (str, os.PathLike)) else source
    if not len(contents):
        raise ValueError(f"{name} is empty. Replace or remove it.")
    try:
        image = _load(name, contents, max_pixels)
    except ValueError:
        plain = png_chunks.without_extras(contents)
        if plain is None:
            raise
        image = _load(name, plain, max_pixels)
    return _turned_upright(image) if orientation == "upright" else image


def check_header(name: str, source: Encoded | str | os.PathLike) -> None:
    """Raises what `read` and `to_rgb` would raise, as far as the beginning of the file shows."""
    try:
        _check_header(name, source)
    except ValueError:
        plain = png_chunks.without_extras(_contents(name, source) if isinstance(source, str | os.PathLike) else source)
        if plain is None:
            raise
        _check_header(name, plain)


def _check_header(name: str, source: Encoded | str | os.PathLike) -> None:
    with contextlib.ExitStack() as opened:
        file: BinaryIO
        if isinstance(source, (str, os.PathLike)):
            file = opened.enter_context(open(source, "rb"))
        else:
            file = io.BytesIO(source)
        begin = file.read(BEGIN)
        if not begin:
            raise ValueError(f"{name} is empty. Replace or remove it.")
        file.seek(0)
        with _errors_about(name, begin):
            image = opened.enter_context(Image.open(file))
        _refuse_deep(name, image)


def _turned_upright(image: Image.Image) -> Image.Image:
    """Turns a loaded image upright by its orientation tag.

    `exif_transpose` by itself would also copy an upright image and rewrite its other tags, which fails for some.
    """
    try:
        turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except MemoryError:
        raise
    except Exception:
        # On damaged blocks: SyntaxError, struct.error, TypeError for a value that cannot be hashed, and others.
        return image
    return image if turn is None else image.transpose(turn)


def _contents(name: str, path: str | os.PathLike) -> bytes:
    if not os.fspath(path):
        raise FileNotFoundError(f"{name}: the path is empty. Pass the path of a file.")
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read()
    except (OSError, ValueError) as error:  # ValueError: there is a NUL in it
        if isinstance(error, OSError) and os.path.isdir(path):
            raise IsADirectoryError(f"{name} is a directory. Pass a list of its files.") from error
        # The cause contains the whole path, which may be an encoded image.
        cause = error if len(os.fspath(path)) <= LONGEST_SHOWN else None
        raise _unreadable(name, path, error) from cause


def _unreadable(name: str, path: str | os.PathLike, error: OSError | ValueError) -> OSError | ValueError:
    """Returns the error for a file that cannot be read: of the type of `error`, with its number."""
    if isinstance(path, str) and (text := base64_text.described(path)):
        advice = "the part after its comma" if text.endswith("URI") else "it"
        return ValueError(f"{name} is {text}, not a path. Pass the image's bytes: `base64.b64decode` of {advice}.")
    if isinstance(path, str) and path.lower().startswith(("http://", "https://")):
        return ValueError(f"{name} is a web address, which is not downloaded. Pass the bytes of the image.")
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(f"{name}: there is no such file. To pass the content of a file, pass bytes.")
    if not isinstance(error, OSError):
        return ValueError(f"{name} cannot be read: {error}. Check the path.")
    unreadable = type(error)(f"{name} cannot be read: {error.strerror or error}. Check the path and its permissions.")
    unreadable.errno = error.errno
    return unreadable


def _load(name: str, source: Encoded | Image.Image, max_pixels: int | None) -> Image.Image:
    with _errors_about(name, None if isinstance(source, Image.Image) else source):
        # a PIL image may come from a file that was not read yet
        image = source if isinstance(source, Image.Image) else Image.open(io.BytesIO(source))
    if max_pixels is not None and image.width * image.height > max_pixels:
        raise ValueError(
            f"{name} has {image.height}x{image.width} pixels (height x width), more than `max_pixels`, {max_pixels:,}. "
            "Make the image smaller, or pass a larger `max_pixels`."
        )
    if not isinstance(source, Image.Image) and image.format in ("JPEG", "MPO"):
        _check_scans(name, source, image.width * image.height)
    _decode(name, image)
    return image


def _decode(name: str, image: Image.Image) -> None:
    closed = _is_closed(image)
    try:
        with _errors_about(name):
            image.load()
            _ = image.im  # which is gone after `image.close()`
    except ValueError as error:
        if closed:
            raise ValueError(
                f"{name} is a PIL image that was closed, so its pixels are gone. Use it inside its `with` block, call "
                "`load()` there, or pass the path."
            ) from error
        raise


def _advice(contents: Encoded) -> str:
    text = base64_text.described(bytes(contents[:BEGIN]).decode("latin-1"))
    return (
        f" It is {text}: pass the result of `base64.b64decode`."
        if text
        else " Convert it to JPEG or PNG, or remove it."
    )


def _is_closed(image: Image.Image) -> bool:
    if getattr(image, "tile", None):  # it is not decoded yet, and needs its file
        file = getattr(image, "fp", None)
        return file is None or bool(getattr(file, "closed", False))
    try:
        _ = image.im
    except ValueError:  # Pillow's "Operation on closed image"
        return True
    except AssertionError:  # not decoded, and without tiles: its plugin decodes in its own way
        return False
    return False


@contextlib.contextmanager
def _errors_about(name: str, contents: Encoded | None = None) -> Iterator[None]:
    try:
        yield
    except UnidentifiedImageError as error:
        advice = "" if contents is None else _advice(contents)
        raise ValueError(f"{name} is not an image file that Pillow can read.{advice}") from error
    except Image.DecompressionBombError as error:
        raise ValueError(f"{name}: {error} Raise `PIL.Image.MAX_IMAGE_PIXELS` if you trust its source.") from error
    except MemoryError:
        raise
    except Exception as error:
        # on damaged files Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, zlib.error and others
        raise ValueError(
            f"{name} is a damaged image file; Pillow says: {str(error) or type(error).__name__}. "
            "Save or fetch it again."
        ) from error


def _check_scans(name: str, contents: Encoded, pixels: int) -> None:
    if Image.MAX_IMAGE_PIXELS is None:
        return
    most = jpeg_scans.most_scans(pixels, 2 * Image.MAX_IMAGE_PIXELS)
    if jpeg_scans.count_scans(contents, most) > most:
        raise ValueError(
            f"{name} is a JPEG of more than {most:,} scans, each of which goes through all of its {pixels:,} pixels. "
            "Raise `PIL.Image.MAX_IMAGE_PIXELS` if you trust its source."
        )


def to_rgb(name: str, image: Image.Image) -> Image.Image:
    """Converts a decoded image to RGB; alpha is dropped.

    Raises:
        ValueError: it has more than 8 bits per channel, or a mode that Pillow cannot convert.
    """
    _refuse_deep(name, image)
    if image.mode == "RGB":
        return image
    if image.mode == "P" and "transparency" in image.info:
        # otherwise Pillow advises to keep the alpha, which is dropped on purpose
        image = image.copy()
        del image.info["transparency"]
    try:
        return image.convert("RGB")
    except ValueError as error:
        raise ValueError(
            f"{name} has the mode {image.mode!r}, which Pillow can't convert to RGB. Save it as an RGB image."
        ) from error


def _pixels(name: str, image: Image.Image, convert_rgb: bool) -> Image.Image | np.ndarray:
    """Returns a decoded image in RGB, or an array of the channels that numpy sees."""
    if convert_rgb:
        return to_rgb(name, image)
    _refuse_deep(name, image)
    array = np.asarray(image)
    return array[..., None] if array.ndim == 2 else array


def _refuse_deep(name: str, image: Image.Image) -> None:
    if image.mode == "F" or image.mode.startswith("I"):
        raise ValueError(
            f"{name} has the mode {image.mode!r}, more than 8 bits per channel. Pillow would make everything above 255 "
            "white. Scale it to 8 bits first, for instance "
            '`Image.fromarray((numpy.asarray(image) / 257).round().astype("uint8"))` if it has 16.'
        )


def _from_array(
    name: str, array: np.ndarray, input_data_format: str | None, convert_rgb: bool
) -> tuple[np.ndarray, str]:
    """Returns the `(height, width, channels)` array and its original data format."""
    if input_data_format is None:
        input_data_format = _infer_data_format(name, array)
    if input_data_format == FIRST:
        array = np.moveaxis(array, 0, -1)
    channels = array.shape[-1]
    if not convert_rgb:
        if channels > 4:
            raise ValueError(
                f"{name} must have 1 to 4 channels, got {channels}. Check `input_data_format`, or keep only some "
                "channels."
            )
        return array, input_data_format
    if channels not in (1, 3, 4):
        raise ValueError(
            f"{name} must have 1, 3 or 4 channels to become RGB, got {channels}. Check `input_data_format`, or keep "
            "only the channels of the colors."
        )
    # transformers 5 composites an array's fourth channel on white; here alpha is dropped, as from a PIL image
    rgb = np.repeat(array, 3, axis=-1) if channels == 1 else array[..., :3]
    return rgb, input_data_format


def _infer_data_format(name: str, array: np.ndarray) -> str:
    first, last = array.shape[0] in (1, 3, 4), array.shape[2] in (1, 3, 4)
    if first and last:
        warnings.warn(
            f"{name} has the shape {array.shape}, whose channels may be first or last. Taking the first. Pass "
            "`input_data_format` to say which.",
            stacklevel=6,
        )
    if first:
        return FIRST
    if last:
        return LAST
    raise ValueError(
        f"{name} has the shape {array.shape}, in which neither the first nor the last axis has 1, 3 or 4 channels. "
        "Expected (height, width, channels) or (channels, height, width); pass `input_data_format` for others, "
        "`input_data_format='none'` for a batch of gray images."
    )
