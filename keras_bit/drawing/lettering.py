"""Text on an image: one line, in a font that has its characters, as long as there is room."""

import contextlib
import functools
import unicodedata

from PIL import ImageFont

FONT = 15  # px
# Files that systems have, beside Pillow's own font, which has little more than the letters of English.
FONTS = (
    *("DejaVuSans.ttf", "NotoSans-Regular.ttf", "arial.ttf", "Arial.ttf", "Arial Unicode.ttf", "arialuni.ttf"),
    *("NotoSansCJK-Regular.ttc", "PingFang.ttc", "Hiragino Sans GB.ttc", "msyh.ttc", "malgun.ttf"),
    *("NotoEmoji-Regular.ttf", "Symbola.ttf", "seguiemj.ttf"),
)
NO_CHARACTER = "\U0010fffe"  # Unicode has none there, so every font draws what it draws for characters that it lacks
ELLIPSIS = "…"

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont  # Pillow's own is the second where it was built without FreeType


def one_line(text: str) -> str:
    """`text` without line breaks and control characters, which would be drawn over other images or as boxes."""
    # Composed: fonts have `ä` rather than `a` and two dots to lay over it, as which macOS stores the names of files.
    text = unicodedata.normalize("NFC", text)
    return "".join(character if character.isprintable() else " " for character in text)


def drawable(text: str, size: int = FONT) -> tuple[str, Font]:
    """`text` and a font that has its characters; where none has all, those that the best one lacks are escaped."""
    # Pillow's own has all of ASCII, and no file is looked for.
    names = (None,) if text.isascii() else (None, *FONTS)
    fonts: list[Font] = [font for name in names if (font := _font(name, size)) is not None]
    best = min(fonts, key=lambda font: sum(_lacks(font, character) for character in text))
    escaped = (c.encode("unicode_escape").decode() if _lacks(best, c) else c for c in text)
    return "".join(escaped), best


def shortened(text: str, font: Font, width: int) -> str:
    """As much of `text` as `width` pixels hold, with an ellipsis where that is not all."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + ELLIPSIS) > width:
        text = text[:-1]
    return text + ELLIPSIS


def wrapped(text: str, font: Font, width: int) -> list[str]:
    """The words of `text` in lines of at most `width` pixels."""
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
    """A font by the name of its file, wherever the system keeps it; `None` where there is none."""
    with contextlib.suppress(OSError):
        return ImageFont.load_default(size) if name is None else ImageFont.truetype(name, size)
    return None


@functools.cache
def _lacks(font: Font, character: str) -> bool:
    def drawn(character: str) -> tuple[tuple[int, int], bytes]:
        mask = font.getmask(character)
        return mask.size, bytes(mask)

    return character != " " and drawn(character) == drawn(NO_CHARACTER)
