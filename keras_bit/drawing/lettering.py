"""Text on an image: one line, in a font that has its characters, shortened to the available room."""

import contextlib
import functools
import unicodedata

from PIL import ImageFont

FONT = 15  # px
# Common font files, because Pillow's own font has little more than English letters.
FONTS = (
    *("DejaVuSans.ttf", "NotoSans-Regular.ttf", "arial.ttf", "Arial.ttf", "Arial Unicode.ttf", "arialuni.ttf"),
    *("NotoSansCJK-Regular.ttc", "PingFang.ttc", "Hiragino Sans GB.ttc", "msyh.ttc", "malgun.ttf"),
    *("NotoEmoji-Regular.ttf", "Symbola.ttf", "seguiemj.ttf"),
)
NO_CHARACTER = "\U0010fffe"  # not a character, so every font draws its symbol for missing characters
ELLIPSIS = "…"

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont  # the second without FreeType


def one_line(text: str) -> str:
    """Removes line breaks and control characters, which would be drawn over other images or as boxes."""
    # Composed, because fonts have `ä` rather than `a` with separate dots, as in file names on macOS.
    text = unicodedata.normalize("NFC", text)
    return "".join(character if character.isprintable() else " " for character in text)


def drawable(text: str, size: int = FONT) -> tuple[str, Font]:
    """Returns `text` and a font with its characters; characters that the best font lacks are escaped."""
    # Pillow's own font has all of ASCII, so no file is needed.
    names = (None,) if text.isascii() else (None, *FONTS)
    fonts: list[Font] = [font for name in names if (font := _font(name, size)) is not None]
    best = min(fonts, key=lambda font: sum(_lacks(font, character) for character in text))
    escaped = (c.encode("unicode_escape").decode() if _lacks(best, c) else c for c in text)
    return "".join(escaped), best


def shortened(text: str, font: Font, width: int) -> str:
    """Shortens `text` to `width` pixels, with an ellipsis if needed."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + ELLIPSIS) > width:
        text = text[:-1]
    return text + ELLIPSIS


def wrapped(text: str, font: Font, width: int) -> list[str]:
    """Breaks the words of `text` into lines of at most `width` pixels."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return [shortened(line, font, width) for line in lines]


@functools.cache
def _font(name: str | None, size: int) -> Font | None:
    """Loads a font by its file name, wherever the system keeps it; `None` if the system has none."""
    with contextlib.suppress(OSError):
        return ImageFont.load_default(size) if name is None else ImageFont.truetype(name, size)
    return None


@functools.cache
def _lacks(font: Font, character: str) -> bool:
    def drawn(character: str) -> tuple[tuple[int, int], bytes]:
        mask = font.getmask(character)
        return mask.size, bytes(mask)

    return character != " " and drawn(character) == drawn(NO_CHARACTER)
