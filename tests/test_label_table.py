"""Tests labels in CSV files: the meaning of each form, and the errors for a wrong file, without TensorFlow."""

import os

import numpy as np
import pytest

from keras_bit import TableOptions
from keras_bit.data import csv_rows, label_table, table_parts

ONE, SEVERAL, NUMBER = label_table.PROBLEM_TYPES


@pytest.fixture
def read(tmp_path):
    """Reads a text as a CSV file next to six empty files, `0.jpg` to `5.jpg`, and `folder/6.png`."""
    for number in range(6):
        (tmp_path / f"{number}.jpg").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "6.png").touch()

    def from_text(text, names=None, check_files=True, **options):
        content = text if isinstance(text, bytes) else text.encode()
        (tmp_path / "labels.csv").write_bytes(content)
        return label_table.read(tmp_path / "labels.csv", TableOptions(**options), names=names, check_files=check_files)

    return from_text


def names_of(table, folder=None):
    return [os.path.basename(path) for path in table.paths]


# What a file means: its text, options, then labels, names and problem type.
FORMS = {
    "a class for each image": ("path,label\n0.jpg,dog\n1.jpg,cat\n", {}, [1, 0], ("cat", "dog"), ONE),
    "keras' flow_from_dataframe": ("filename,class\n0.jpg,dog\n1.jpg,cat\n", {}, [1, 0], ("cat", "dog"), ONE),
    "classes by their numbers": ("id,diagnosis\n0,2\n1,0\n2,1\n", {}, [2, 0, 1], ("0", "1", "2"), ONE),
    "ten classes by their numbers, not sorted as text": (
        "path,label\n" + "".join(f"{place}.jpg,{value}\n" for place, value in enumerate([10, 9, 2])),
        {"problem_type": ONE},
        [2, 1, 0],
        ("2", "9", "10"),
        ONE,
    ),
    "several names": ("path,tags\n0.jpg,a;b\n1.jpg,\n2.jpg,b\n", {}, [[1, 1], [0, 0], [0, 1]], ("a", "b"), SEVERAL),
    "several names, another sign": ("path,tags\n0.jpg,a| b\n1.jpg,b|\n", {}, [[1, 1], [0, 1]], ("a", "b"), SEVERAL),
    "fastai's planet": (
        "image_name,tags\n0,clear  primary\n1,haze\n",
        {"label_separator": " "},
        [[1, 0, 1], [0, 1, 0]],
        ("clear", "haze", "primary"),
        SEVERAL,
    ),
    "one name or none": (
        "path,tag\n0.jpg,a\n1.jpg,\n",
        {"problem_type": SEVERAL},
        [[1], [0]],
        ("a",),
        SEVERAL,
    ),
    "Kaggle's columns": ("image,a,b\n0.jpg,1,1\n1.jpg,0,1.0\n", {}, [[1, 1], [0, 1]], ("a", "b"), SEVERAL),
    "columns of true and false": (
        "image,a,b\n0.jpg,True,true\n1.jpg,false,NO\n",
        {},
        [[1, 1], [0, 0]],
        ("a", "b"),
        SEVERAL,
    ),
    "ISIC's columns, one 1 in each line": ("image,a,b\n0.jpg,0.0,1.0\n1.jpg,1.0,0.0\n", {}, [1, 0], ("a", "b"), ONE),
    "the same, as several": (
        "image,a,b\n0.jpg,0.0,1.0\n1.jpg,1.0,0.0\n",
        {"problem_type": SEVERAL},
        [[0, 1], [1, 0]],
        ("a", "b"),
        SEVERAL,
    ),
    "numbers": ("path,price\n0.jpg,-1.5e-3\n1.jpg,20\n", {}, [-0.0015, 20], ("price",), NUMBER),
    "numbers of which few are fractions": ("path,x\n0,1\n1,2\n2,3.5\n", {}, [1, 2, 3.5], ("x",), NUMBER),
    "whole numbers": ("path,age\n0.jpg,7\n1.jpg,34\n", {"problem_type": NUMBER}, [7, 34], ("age",), NUMBER),
    "several numbers": ("path,x,y\n0.jpg,0.5,3\n1.jpg,0.25,4\n", {}, [[0.5, 3], [0.25, 4]], ("x", "y"), NUMBER),
    "a spreadsheet of another country": (
        "sep=;\r\nage;path\r\n3,5;0.jpg\r\n\r\n4;1.jpg\r\n",
        {},
        [3.5, 4],
        ("age",),
        NUMBER,
    ),
    "the label among other columns": (
        "width,path,label,height\n1,0.jpg,b,2\n3,1.jpg,a,4\n",
        {},
        [1, 0],
        ("a", "b"),
        ONE,
    ),
    "columns that are named": (
        "path,x,y,z\n0.jpg,1,no,2\n1.jpg,2,yes,3\n",
        {"label_columns": ["z", "x"], "problem_type": NUMBER},
        [[2, 1], [3, 2]],
        ("z", "x"),
        NUMBER,
    ),
    "an unnamed column of pandas": (",path,label\n0,0.jpg,b\n1,1.jpg,a\n", {}, [1, 0], ("a", "b"), ONE),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_forms_in_which_labels_come(read, form):
    text, options, labels, names, kind = FORMS[form]
    table = read(text, **options)
    assert (table.labels.tolist(), table.names, table.problem_type) == (labels, names, kind)
    assert table.labels.dtype == {ONE: np.int32, SEVERAL: np.float32, NUMBER: np.float64}[kind]
    assert names_of(table) == [f"{number}.jpg" for number in range(len(labels))]
    assert table.parts is None


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings_with_a_mark_and_the_two_spellings_of_an_accent(read, encoding):
    table = read("path\tlabel\n0.jpg\tcafe\u0301\n1.jpg\tcaf\u00e9\n".encode(encoding))
    assert (table.names, table.labels.tolist()) == (("caf\u00e9",), [0, 0])


def test_paths_of_windows_absolute_ones_and_names_without_a_suffix(read, tmp_path):
    table = read(f"path,label\nfolder\\6.png,a\n{tmp_path / '0.jpg'},b\nfolder/6,a\n1,b\n2.jpg,a\n")
    assert names_of(table) == ["6.png", "0.jpg", "1.jpg", "2.jpg"]  # folder/6 is folder\6.png again
    assert all(os.path.isfile(path) for path in table.paths)
    assert table.notes == (
        "2 images have no suffix in the table, and were found with one.",
        "Left out: 1 repeated lines.",
    )
    assert names_of(read("path,label\n6,a\n", image_folder=str(tmp_path / "folder"))) == ["6.png"]


def test_a_column_divides_the_images(read):
    table = read("split,path,label\ntrain,0.jpg,a\nVal,1.jpg,b\ntest,2.jpg,a\n")
    assert table.parts == ("train", "validation", "test")
    assert read("fname,labels,is_valid\n0.jpg,a,True\n1.jpg,b,0\n").parts == ("validation", "train")
    named = read("path,split\n0.jpg,pea\n1.jpg,bean\n", label_columns=["split"])
    assert (named.parts, named.names) == (None, ("bean", "pea"))


def test_the_classes_may_be_named_and_keep_that_order(read):
    assert read("path,label\n0.jpg,a\n1.jpg,b\n", names=["b", "c", "a"]).labels.tolist() == [2, 0]
    assert read("path,a,b\n0.jpg,1,0\n1.jpg,1,1\n", names=["b", "a"]).labels.tolist() == [[0, 1], [1, 1]]
    numbers = read("path,x,y,note\n0.jpg,1.5,2,n\n1.jpg,3,4,n\n", names=["y", "x"])
    assert (numbers.labels.tolist(), numbers.names) == ([[2, 1.5], [4, 3]], ("y", "x"))


def test_the_notes_name_the_columns_that_were_chosen(read):
    assert read("path,label,age\n0.jpg,a,3\n1.jpg,b,4\n").notes == ("Left out: the column 'age'.",)
    assert "The numbers in 'label' are 2 classes" in read("path,label\n0.jpg,1\n1.jpg,0\n").notes[0]
    assert "so they are read as its class" in read("path,a,b\n0.jpg,1,0\n1.jpg,0,1\n").notes[0]
    assert read("path,tags\n0.jpg,a;b\n1.jpg,\n").notes == ("1 of 2 images have no label.",)


# What is wrong with a file: its text, options, and facts of the error.
BAD = {
    "empty": ("", {}, ("is empty", "'path,label'")),
    "a header alone": ("path,label\n\n", {}, ("has a header ('path', 'label') but no row",)),
    "no header": ("0.jpg,cat\n1.jpg,dog\n", {}, ("must begin with the names of its columns", "'0.jpg'")),
    "one column": ("path\n0.jpg\n", {}, ("must have a column of labels besides", "'path'")),
    "two columns of a name": ("path,a,a\n0.jpg,1,0\n", {}, ("several columns named 'a'",)),
    "a row too long": ("path,label\n0.jpg,tabby, cat\n", {}, ("2 cells", "line 2 has 3", "double quotes")),
    "an open quote": ('path,label\n0.jpg,"cat\n1.jpg,dog\n', {}, ("not a valid CSV file, in line 2",)),
    "Latin-1": ("path,label\n0.jpg,a\n1.jpg,caf\xe9\n".encode("latin-1"), {}, ("UTF-8", "0xe9 in line 3", "CSV UTF-8")),
    "zero bytes": ("path,label\n0.jpg,a\0\n", {}, ("zero byte in line 2",)),
    "an image that is missing": (
        "path,label\n0.jpg,a\n7.jpg,b\n",
        {},
        ("1 of 2", "'7.jpg' in line 3", "on_error='skip'"),
    ),
    "all images missing": ("path,label\n8.jpg,a\n7.jpg,b\n", {}, ("2 of 2", "'8.jpg' in line 2", "`image_folder`")),
    "no path": ("path,label\n0.jpg,a\n,b\n", {}, ("'path'", "must name an image in every line", "empty: 3")),
    "an address": ("path,label\nhttps://a.b/c.jpg,a\n", {}, ("address 'https://a.b/c.jpg' in line 2", "Download")),
    "twice, another label": ("path,label\n0.jpg,a\n1.jpg,b\n./0.jpg,b\n", {}, ("once", "the lines 2 and 4")),
    "twice, another part": ("path,label,split\n0.jpg,a,train\n0.jpg,a,test\n", {}, ("once", "the lines 2 and 3")),
    "no label": ("path,label\n0.jpg,a\n1.jpg,\n", {}, ("'label'", "'' in line 3", "problem_type")),
    "all labels empty": ("path,tags\n0.jpg,\n1.jpg,;\n", {}, ("'tags'", "at least one class")),
    "whole numbers": ("path,age\n0.jpg,3\n1.jpg,40\n", {}, ("'age'", "from 3 to 40", "`problem_type`", "'regression'")),
    "a text among numbers": ("path,age\n0.jpg,3.5\n1.jpg,40.5\n2.jpg,n/a\n", {}, ("'age'", "'n/a' in line 4 (1 of 3")),
    "no number": ("path,x,y\n0.jpg,1.5,2\n1.jpg,1,\n", {}, ("'y'", "'' in line 3", "`label_columns`")),
    "nan": ("path,x\n0.jpg,nan\n1.jpg,1.5\n", {}, ("'x'", "'nan' in line 2")),
    "beyond float32": ("path,x\n0.jpg,1e39\n1.jpg,1.5\n", {}, ("'x'", "'1e39' in line 2", "float32")),
    "CheXpert's -1": (
        "path,a,b\n0.jpg,1,-1\n1.jpg,0,1\n",
        {"problem_type": SEVERAL},
        ("'b'", "0 or 1", "'-1' in line 2"),
    ),
    "two classes at once": (
        "path,a,b\n0.jpg,1,1\n1.jpg,0,1\n",
        {"problem_type": ONE},
        ("one 1 in each line", "line 2"),
    ),
    "a part that is none": ("path,label,split\n0.jpg,a,holdout\n", {}, ("'split'", "'holdout' in line 2", "train")),
    "a column that is none": ("path,label\n0.jpg,a\n", {"label_columns": ["tags"]}, ("`label_columns`", "got 'tags'")),
    "no column of images": ("width,height\n10,20\n30,50\n", {}, ("column 'width'", "'10'")),  # not about the heights
    "an image column that is none": ("path,label\n0.jpg,a\n", {"image_column": "x"}, ("`image_column`", "got 'x'")),
    "a separator for columns": ("path,a,b\n0.jpg,1,1\n", {"label_separator": ";"}, ("`label_separator`", "one column")),
}


@pytest.mark.parametrize("fault", BAD)
def test_an_error_names_the_line_the_column_and_what_to_do(read, fault):
    text, options, facts = BAD[fault]
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the facts are compared below
        read(text, **options)
    said = str(error.value)
    assert "labels.csv" in said or "column" in said
    assert all(fact in said for fact in facts), said


def test_names_outside_of_the_classes_are_reported_with_their_lines(read):
    for text, names in (("path,label\n0.jpg,a\n1.jpg,x\n", ["a"]), ("path,tags\n0.jpg,a;a\n1.jpg,a;x\n", ["a"])):
        with pytest.raises(ValueError, match=r"among the classes|one of the classes") as error:
            read(text, names=names)
        assert "in line 3 (1 of 2 lines)" in str(error.value)
    with pytest.raises(ValueError, match=r"must be the classes 'a', 'c', got 'a', 'b'"):
        read("path,a,b\n0.jpg,1,1\n", names=["a", "c"])


def test_a_missing_image_is_left_to_who_reads_it(read):
    assert names_of(read("path,label\n0.jpg,a\n7.jpg,b\n", check_files=False)) == ["0.jpg", "7.jpg"]


def test_a_file_of_another_kind(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"The file .*no\.csv' does not exist"):
        csv_rows.read(tmp_path / "no.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(OSError, match=r"folder\.csv' cannot be read"):
        csv_rows.read(tmp_path / "folder.csv")
    with pytest.raises(ValueError, match="`problem_type` must be one of 'single_label_classification'"):
        TableOptions(problem_type="multilabel")


def test_the_rarest_labels_are_divided_first():
    """A label of two images among a hundred has one in each part; by chance this would happen in two of five cases."""
    labels = np.zeros((100, 3), np.float32)
    labels[:2, 0], labels[:40, 1], labels[50:, 2] = 1, 1, 1
    part = label_table.LabelTable(tuple(map(str, range(100))), labels, ("a", "b", "c"), SEVERAL)
    for seed in range(5):
        train, validation = table_parts.divided(
            table_parts.part_of_table(part), SEVERAL, 3, 0.2, np.random.default_rng(seed)
        )
        assert sorted([*train.names, *validation.names], key=int) == list(map(str, range(100)))
        assert validation.labels.sum(axis=0).tolist() == [1, pytest.approx(8, abs=1), pytest.approx(10, abs=1)]
