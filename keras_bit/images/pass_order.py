"""The direction that Pillow resizes first, which decides how values are rounded between the two passes."""

import PIL

from keras_bit import versions

# When the vertical pass comes first, by version of Pillow: never; for images that become lower and are over 100 times
# as high as wide; or for images that lose more than twice as many rows as columns.
NEVER, VERY_HIGH, WHERE_IT_SAVES = "never", "very high", "where it saves"


def vertical_first() -> str:
    """Returns the rule of the installed Pillow."""
    if versions.is_older(PIL.__version__, versions.VERTICAL_BY_HEIGHT):
        return NEVER
    if versions.is_older(PIL.__version__, versions.VERTICAL_BY_SAVING):
        return VERY_HIGH
    return WHERE_IT_SAVES
