"""Labels, as people send them."""

from typing import Any

import numpy as np
import pytest

from service import problems
from tests.support.datasets import IMAGES, LABELS, Checked, check_arrays

ONE_HOT = np.eye(4)[LABELS]
MASKS = np.arange(4 * 8 * 6).reshape(4, 8, 6) % 5
IGNORING = np.where(MASKS == 0, 255, MASKS)


def labelled(labels: Any, name: str = "labels") -> Checked:
    return check_arrays(images=IMAGES, **{name: labels})


@pytest.mark.parametrize("dtype", ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", ">i4", "f4", "f8"])
@pytest.mark.parametrize("shape", [(4,), (4, 1), (1, 4)])
def test_classes_of_any_dtype(dtype: str, shape: tuple[int, ...]) -> None:
    found = labelled(LABELS.astype(dtype).reshape(shape))
    assert found.arrays["labels"].tolist() == LABELS.tolist()
    assert found.facts.tensors["labels"] == ("I64", [4])
    assert (found.facts.labels, found.facts.classes) == ("classes", 3)
    assert ("class numbers" in found.notes) == (dtype[0] == "f")


@pytest.mark.parametrize("dtype", ["f4", "i8", "u1", "?"])
def test_a_column_for_each_class(dtype: str) -> None:
    found = labelled(ONE_HOT.astype(dtype))
    assert found.arrays["labels"].tolist() == LABELS.tolist()
    assert (found.facts.labels, found.facts.classes) == ("classes", 4)
    assert "a single 1 in each row" in found.notes


def test_classes_by_name_and_of_two_kinds() -> None:
    texts = labelled(np.array(["owl", "cat", "dog", "owl"]))
    assert texts.arrays["labels"].tolist() == [2, 0, 1, 2]
    assert (texts.facts.classes, texts.facts.class_names) == (3, ["cat", "dog", "owl"])
    assert "alphabetical order" in texts.notes
    assert labelled(np.array([b"b", b"a", b"a", b"a"])).facts.class_names == ["a", "b"]
    assert labelled(LABELS > 0).arrays["labels"].tolist() == [1, 0, 1, 1]


def test_classes_that_are_not_counted_from_0_are_questioned() -> None:
    found = labelled(LABELS + 1)
    assert found.facts.classes == 4
    assert "No label of `labels` is 0: the smallest is 1." in found.notes


def test_several_classes_of_a_row_are_values() -> None:
    several = np.array([[1, 1, 0], [0, 0, 0], [0, 1, 0], [1, 1, 1]], np.uint8)
    found = labelled(several)
    assert (found.facts.labels, found.facts.classes) == ("values", None)
    assert found.arrays["targets"].tolist() == several.tolist()
    assert "no or several of 3 classes" in found.notes


@pytest.mark.parametrize("shape", [(4, 8, 6), (4, 1, 8, 6), (4, 8, 6, 1)])
def test_a_class_for_each_pixel(shape: tuple[int, ...]) -> None:
    found = labelled(MASKS.reshape(shape), "targets")
    assert (found.facts.labels, found.facts.classes) == ("dense classes", 5)
    assert found.facts.tensors["targets"] == ("U8", [4, 8, 6])
    assert found.arrays["targets"].tolist() == MASKS.tolist()


@pytest.mark.parametrize(("values", "dtype"), [(MASKS * 100, "I16"), (MASKS + 40000, "I32"), (MASKS - 1, "I16")])
def test_dense_classes_are_stored_in_what_holds_them(values: Any, dtype: str) -> None:
    found = labelled(values, "targets")
    assert found.facts.tensors["targets"][0] == dtype
    assert found.arrays["targets"].tolist() == values.tolist()


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_255_in_a_mask_is_no_class(dtype: Any) -> None:
    found = labelled(IGNORING.astype(dtype), "targets")
    assert found.facts.classes == 5
    assert found.arrays["targets"].tolist() == np.where(MASKS == 0, -1, MASKS).tolist()
    assert "255 in `targets` was taken for places without a class" in found.notes
    assert labelled(MASKS + 251, "targets").facts.classes == 256
    assert labelled(MASKS > 2, "targets").facts.classes == 2


@pytest.mark.parametrize("values", [np.random.default_rng(0).random((4, 3)), IMAGES / 255, np.array([1.0, 2.0, 0.0, 5.0])])
def test_floats_are_values(values: Any) -> None:
    found = labelled(values, "targets")
    assert (found.facts.labels, found.facts.classes) == ("values", None)
    assert found.arrays["targets"].tolist() == values.astype(np.float32).tolist()
    assert labelled(np.array([0.5, 1, 2, 3])).facts.labels == "values"


@pytest.mark.parametrize(
    ("labels", "detail"),
    [
        (LABELS[:3], r"`labels` \(int64 of shape \[3\]\) does not fit 4 rows"),
        (np.zeros(5, np.int64), r"\[5\]"),
        (np.int64(3), r"of shape \[\]"),
        (np.zeros((4, 0), np.int64), r"\[4, 0\]"),
        (LABELS - 1, "`labels` ranges from -1 to 1; class numbers range from 0 to 99999"),
        (LABELS * 50000, "from 0 to 100000"),
        (LABELS.astype(np.uint64) << 62, "from 0 to 9.2"),
        (MASKS - 2, "from -2 to 2; class numbers range from -1 to 99999, and -1 stands for no class"),
        (np.array([0, 1, np.nan, 2]), "NaN"),
        (np.array([0, 1, 0.5, 1e300]), "float32 can't hold"),
        (LABELS.astype(complex), r"complex128 of shape \[4\]"),
        (np.array([["a", "b"]] * 4), r"<U1 of shape \[4, 2\]"),
        (np.array([1, 2, None, 3], dtype=object), "Python objects"),
        (IMAGES, "looks like images; send them as float32"),
    ],
)
def test_what_can_be_no_labels_is_refused_with_what_to_send(labels: Any, detail: str) -> None:
    with pytest.raises(problems.BadDataset, match=detail) as refused:
        labelled(labels)
    assert "send" in str(refused.value)


def test_arrays_without_names_are_labels_only_if_they_fit() -> None:
    found = check_arrays(arr_0=IMAGES, arr_1=np.zeros((4, 7), np.float32))
    assert found.facts.labels is None
    assert "ignored: arr_1" in found.notes
