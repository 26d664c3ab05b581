"""What a person reads on a terminal."""

from typing import Any

from rich.console import Console


def console() -> Console:
    # File names and labels are printed as they are: `[cat]` is no markup in them and `:dog:` no emoji.
    return Console(markup=False, emoji=False, highlight=False)


def printable(text: str) -> str:
    """`text` as one line without control characters: names and labels must not drive the terminal."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def input_size(processor: Any) -> str:
    """What the processor makes of an image, in words."""
    if processor.do_center_crop:
        return f"{processor.crop_size['height']}x{processor.crop_size['width']} px"
    if not processor.do_resize:
        return "the image's own"
    if "shortest_edge" in processor.size:
        return f"short edge {processor.size['shortest_edge']} px"
    return f"{processor.size['height']}x{processor.size['width']} px"
