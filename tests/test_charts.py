"""Tests the charts: PNG files that show all names and numbers, and are never half written."""

import itertools
import sys
import warnings

import numpy as np
import pytest
from PIL import Image

from conftest import needs_matplotlib
from keras_bit.drawing import charts
from keras_bit.evaluation import metrics

LOG = [
    {"step": 1, "loss": 2.0, "accuracy": 0.1, "learning_rate": 0.001},
    {"step": 2, "loss": float("nan"), "accuracy": 0.3, "learning_rate": 0.003, "val_loss": 1.5, "val_accuracy": None},
    {"step": 3, "loss": 1.0, "accuracy": 0.6, "learning_rate": 0.003, "val_loss": 1.0, "val_accuracy": 0.5},
]


@pytest.fixture(autouse=True)
def skipped_without_matplotlib(request):
    if "without_matplotlib" not in request.node.name:
        needs_matplotlib()


def pixels(file):
    with Image.open(file) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def drawn(monkeypatch):
    """Collects the figures that are saved from here on."""
    figures, saved = [], charts.save
    monkeypatch.setattr(charts, "save", lambda figure, file: (figures.append(figure), saved(figure, file)))
    return figures


def texts(axis):
    return [text.get_text() for text in axis.texts]


def labels(axis):
    return [text.get_text() for text in axis.get_xticklabels()], [text.get_text() for text in axis.get_yticklabels()]


def mixed(classes, examples=3):
    true = np.repeat(np.arange(classes), examples)
    return metrics.confusion_matrix(true, np.roll(true, 1), classes)


def test_curves_have_a_panel_per_logged_value_and_skip_missing_ones(monkeypatch, tmp_path):
    figures = drawn(monkeypatch)
    charts.curves(LOG, tmp_path / "curves.png")
    loss, accuracy, rate = figures[0].axes
    assert [axis.get_ylabel() for axis in figures[0].axes] == ["loss", "accuracy", "learning rate"]
    assert [line.get_xydata().tolist() for line in loss.lines] == [[[1, 2], [3, 1]], [[2, 1.5], [3, 1]]]
    assert [line.get_xydata().tolist() for line in accuracy.lines] == [[[1, 0.1], [2, 0.3], [3, 0.6]], [[3, 0.5]]]
    assert [text.get_text() for text in loss.get_legend().get_texts()] == ["training", "validation"]
    assert len(rate.lines) == 1
    charts.curves([{"step": 5, "loss": 1.0}], tmp_path / "curves.png")
    assert [axis.get_ylabel() for axis in figures[1].axes] == ["loss"]
    assert labels(figures[1].axes[0])[0] == ["5"]
    assert pixels(tmp_path / "curves.png").std() > 0


@pytest.mark.parametrize("rows", [[], [{"step": 1}], [{"loss": 1.0}], [{"step": 1, "loss": float("inf")}]])
def test_curves_of_nothing_are_an_error(rows, tmp_path):
    with pytest.raises(ValueError, match=f"`rows` must have a `step` and numbers .*, got {len(rows)} rows without any"):
        charts.curves(rows, tmp_path / "curves.png")
    assert not list(tmp_path.iterdir())


def test_a_small_confusion_matrix_shows_numbers_and_row_shares(monkeypatch, tmp_path):
    figures = drawn(monkeypatch)
    charts.confusion([[3, 1, 0], [0, 0, 0], [0, 0, 5]], ["cat", "dog", "fox"], tmp_path / "c.png")
    axis = figures[0].axes[0]
    shares = axis.images[0].get_array()
    np.testing.assert_array_equal(shares.filled(-1), [[0.75, 0.25, 0], [-1, -1, -1], [0, 0, 1]])  # no dog: no share
    assert texts(axis) == ["3", "1", "5"]
    assert labels(axis) == (["cat", "dog", "fox"], ["cat", "dog", "fox"])
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("predicted", "true")


@pytest.mark.parametrize(("classes", "numbered"), [(2, True), (60, True), (61, False)])
@pytest.mark.slow
def test_numbers_stand_in_the_cells_where_they_have_room(monkeypatch, tmp_path, classes, numbered):
    figures = drawn(monkeypatch)
    charts.confusion(mixed(classes), [f"class {index}" for index in range(classes)], tmp_path / "c.png")
    axis = figures[0].axes[0]
    assert bool(axis.texts) is numbered
    assert len(labels(axis)[0]) == classes


@pytest.mark.parametrize("classes", [100, 2500])
@pytest.mark.slow
def test_of_many_classes_names_are_thinned_and_do_not_run_into_each_other(monkeypatch, tmp_path, classes):
    figures = drawn(monkeypatch)
    charts.confusion(mixed(classes), [f"a class with the number {index}" for index in range(classes)], tmp_path / "c")
    figure, axis = figures[0], figures[0].axes[0]
    boxes = [text.get_window_extent() for text in axis.get_yticklabels()]
    assert 50 < len(boxes) <= 125
    assert all(upper.y0 > lower.y1 - 1 for upper, lower in itertools.pairwise(boxes))
    assert max(axis.images[0].get_array().shape) <= charts.MOST_CELLS
    assert axis.get_ylim() == (classes - 0.5, -0.5)
    assert max(figure.get_size_inches()) < 16


def test_the_largest_share_of_a_block_is_what_a_pooled_matrix_shows():
    shares = np.zeros((5, 5))
    shares[4, 2] = 0.5
    shares[0] = np.nan
    pooled = charts._pooled(shares, 3)
    np.testing.assert_array_equal(pooled, [[0, 0, 0], [0, 0, 0], [0, 0.5, 0]])


def test_names_are_drawn_as_they_are_and_shortened(monkeypatch, tmp_path):
    figures = drawn(monkeypatch)
    names = [
        "$x_1$ [b]",
        "two\nlines\x1b[31m\udce9",
        "cu\u0308 \U0001f436",
        "a very long name of a class that never ends",
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # as matplotlib's "Glyph missing from font"
        charts.confusion(np.eye(4, dtype=int), names, tmp_path / "c.png")
    found, _ = labels(figures[0].axes[0])
    assert found == ["$x_1$ [b]", "two lines [31m ", r"cü \U0001f436", f"a very long name of a class{charts.ELLIPSIS}"]


def test_a_matrix_may_have_a_column_without_a_row(monkeypatch, tmp_path):
    figures = drawn(monkeypatch)
    charts.confusion([[3, 1]], ["cat"], tmp_path / "c.png", column_names=["cat", "(another class)"])
    assert labels(figures[0].axes[0]) == (["cat", "(another class)"], ["cat"])
    for matrix, names in (([[1, 0]], ["cat"]), ([[1]], ["cat", "dog"]), (np.zeros((0, 0)), [])):
        with pytest.raises(ValueError, match="`matrix` must have a row for each of `class_names` and a column"):
            charts.confusion(matrix, names, tmp_path / "c.png")


def test_the_calibration_chart_has_a_bar_for_each_bin_with_answers(monkeypatch, tmp_path):
    figures = drawn(monkeypatch)
    found = metrics.calibration(np.array([0.7, 0.72, 0.9]), np.array([True, False, True]))
    charts.calibration(found.bins, found.error, tmp_path / "c.png")
    upper, lower = figures[0].axes
    assert [patch.get_height() for patch in upper.patches] == [0.5, 1.0]
    assert [patch.get_height() for patch in lower.patches if patch.get_height()] == pytest.approx([2 / 3, 1 / 3])
    assert upper.get_title("left") == f"Expected calibration error {100 * found.error:.1f} %"
    assert lower.get_ylabel() == "share of 3"


@pytest.mark.parametrize("side_by_side", [True, False])
def test_bars_have_their_values_their_names_and_the_first_row_on_top(monkeypatch, tmp_path, side_by_side):
    figures = drawn(monkeypatch)
    rows = [charts.Bar("a $x$", [(1234.5, "red"), (0.1234, "blue")], limit=3.0), charts.Bar("b", [])]
    charts.bars({"ms": rows, "MB": rows}, tmp_path / "bars.png", "a $title$\nof two lines", side_by_side)
    for axis, name in zip(figures[0].axes, ("ms", "MB"), strict=True):
        assert axis.get_xlabel() == name
        assert texts(axis) == [" 1,234", " 0.123"]
        assert [bar.get_width() for bar in axis.patches] == [1234.5, 0.1234]
        assert [list(line.get_xdata()) for line in axis.lines] == [[3.0, 3.0]]
        assert axis.yaxis_inverted()
    assert [text.get_text() for text in figures[0].axes[0].get_yticklabels()] == ["a $x$", "b"]
    assert figures[0].get_suptitle() == "a $title$\nof two lines"
    assert pixels(tmp_path / "bars.png").shape[1] > 600


def test_a_chart_that_fails_leaves_only_the_old_file(monkeypatch, tmp_path):
    (tmp_path / "c.png").write_text("old")

    def failing(self, *arguments, **options):
        raise RuntimeError("no room")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", failing)
    with pytest.raises(RuntimeError, match="no room"):
        charts.confusion([[1]], ["cat"], tmp_path / "c.png")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("c.png", "old")]


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for name in [name for name in sys.modules if name.startswith("matplotlib.")]:
        monkeypatch.delitem(sys.modules, name)
    assert not charts.available()
    with pytest.raises(ImportError, match=r"matplotlib.*keras_bit\[plots\]"):
        charts.curves(LOG, tmp_path / "curves.png")
    assert not list(tmp_path.iterdir())
