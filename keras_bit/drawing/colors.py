"""The colors of all that is drawn."""

# Of sheets, as Pillow has them.
BACKGROUND, INK, FAINT = (250, 250, 250), (25, 25, 25), (110, 110, 110)
# From the strongest contribution against a class to the strongest for it. Blue and red, and not green and red, which
# many people do not tell apart.
AGAINST, FOR = (20, 80, 200), (225, 30, 10)

# Of charts, as matplotlib has them.
BLUE, ORANGE, GRAY = "#1f5fa8", "#d9730d", "#8a8a8a"
SHADES = "Blues"  # a color map's name
NO_SHADE = "#e4e4e4"  # where there is no share
ON_LIGHT, ON_DARK = "#222222", "white"  # numbers on a shade
