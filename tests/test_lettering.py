"""Tests text on images: which font draws it, what is escaped, what is cut."""

from PIL import Image, ImageFont

from keras_bit.drawing import lettering


def test_a_long_text_is_shortened_to_the_room_there_is():
    font = ImageFont.load_default(lettering.FONT)
    long = lettering.shortened("a very long name of a class " * 5, font, 192)
    assert long.startswith("a very long")
    assert long.endswith(lettering.ELLIPSIS)
    assert font.getlength(long) <= 192
    assert lettering.shortened("short", font, 192) == "short"


def test_the_font_that_has_the_most_of_a_label_draws_it(monkeypatch):
    class Font:
        def __init__(self, known):
            self.known = known

        def getmask(self, character):
            return Image.new("L", (1, 1), ord(character) % 200 if character in self.known else 255).im

    fonts = {None: Font("cat"), "a": Font("cät"), "b": Font("日ä t")}
    monkeypatch.setattr(lettering, "FONTS", ("nowhere", "a", "b"))
    monkeypatch.setattr(lettering, "_font", lambda name, size: fonts.get(name))
    for text, shown, font in (
        ("cat", "cat", None),
        ("cät", "cät", "a"),
        ("日 ät", "日 ät", "b"),
        ("cät 日", r"cät \u65e5", "a"),
        ("дät", r"\u0434ät", "a"),
    ):
        assert lettering.drawable(text) == (shown, fonts[font])


def test_a_letter_and_its_dots_are_one_character():
    assert lettering.one_line("cu\N{COMBINING DIAERESIS}") == "cü"
