"""The colors of charts and sheets."""

# Colors of sheets, in Pillow's form.
BACKGROUND, INK, FAINT = (250, 250, 250), (25, 25, 25), (110, 110, 110)
# The colors of the strongest contribution against a class and of the strongest for it. They are blue and red, because
# many people cannot distinguish green and red.
AGAINST, FOR = (20, 80, 200), (225, 30, 10)

# Colors of charts, in matplotlib's form.
BLUE, ORANGE, GRAY = "#1f5fa8", "#d9730d", "#8a8a8a"
SHADES = "Blues"  # a color map's name
NO_SHADE = "#e4e4e4"  # the color of a cell without a share
ON_LIGHT, ON_DARK = "#222222", "white"  # numbers on a shade
