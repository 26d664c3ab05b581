"""The colors of charts and sheets."""

# Of sheets, in Pillow's form.
BACKGROUND, INK, FAINT = (250, 250, 250), (25, 25, 25), (110, 110, 110)
# From the strongest contribution against a class to the strongest for it. Blue and red, because many people cannot
# distinguish green and red.
AGAINST, FOR = (20, 80, 200), (225, 30, 10)

# Of charts, in matplotlib's form.
BLUE, ORANGE, GRAY = "#1f5fa8", "#d9730d", "#8a8a8a"
SHADES = "Blues"  # a color map's name
NO_SHADE = "#e4e4e4"  # the color of a cell without a share
ON_LIGHT, ON_DARK = "#222222", "white"  # numbers on a shade
