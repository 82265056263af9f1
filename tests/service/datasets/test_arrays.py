"""Files of arrays, as people send them: which arrays are taken, and what the answer says about it."""

from collections import OrderedDict
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch

from service import problems
from tests.support.datasets import IMAGES, LABELS, check, check_arrays
from tests.support.networks import npz

GREY = IMAGES[..., 0]
FLOATS = np.random.default_rng(0).random((4, 8, 6, 3), np.float32)

# What people send, and the answer that each sender wants: the stored images, the classes, and words of the notes.
SENT: list[tuple[str, dict[str, Any], Any, int | None, str]] = [
    ("as it is asked for", {"images": IMAGES, "labels": LABELS}, IMAGES, 3, ""),
    ("no labels", {"images": IMAGES}, IMAGES, None, ""),
    ("Fortran order", {"images": np.asfortranarray(IMAGES), "labels": LABELS}, IMAGES, 3, ""),
    ("grey images without channels", {"images": GREY, "labels": LABELS}, GREY[..., None], 3, "no axis of channels"),
    ("grey images, channels last", {"images": GREY[..., None], "labels": LABELS}, GREY[..., None], 3, ""),
    ("channels first", {"images": IMAGES.transpose(0, 3, 1, 2), "labels": LABELS}, IMAGES, 3, "N x C x H x W"),
    ("grey, channels first", {"images": GREY[:, None], "labels": LABELS}, GREY[..., None], 3, "N x C x H x W"),
    ("floats of 256 levels", {"images": (IMAGES / 255).astype("f4"), "labels": LABELS}, IMAGES, 3, "without loss"),
    ("doubles of 256 levels", {"images": IMAGES / 255, "labels": LABELS}, IMAGES, 3, "without loss"),
    ("doubles of floats", {"images": (IMAGES / np.float32(255)).astype("f8")}, IMAGES, None, "without loss"),
    ("half floats of 256 levels", {"images": (IMAGES / 255).astype("f2"), "labels": LABELS}, IMAGES, 3, "without loss"),
    ("floats by multiplication", {"images": IMAGES * np.float32(1 / 255)}, IMAGES, None, "without loss"),
    ("floats from 0 to 255", {"images": IMAGES.astype("f4"), "labels": LABELS}, IMAGES, 3, "from 0 to 255"),
    ("floats from 0 to 1", {"images": FLOATS, "labels": LABELS}, FLOATS, 3, "float32, not rounded"),
    ("fractions from 0 to 255", {"images": FLOATS * 255}, FLOATS * 255 / np.float32(255), None, "divided by 255"),
    ("int64", {"images": IMAGES.astype(np.int64), "labels": LABELS}, IMAGES, 3, "int64 from 0 to 255"),
    ("big-endian", {"images": IMAGES.astype(">i2"), "labels": LABELS.astype(">i4")}, IMAGES, 3, "stored as uint8"),
    ("booleans", {"images": GREY > 99}, ((GREY > 99) * 255)[..., None], None, "true became 255"),
    ("labels N x 1", {"images": IMAGES, "labels": LABELS[:, None]}, IMAGES, 3, "[4, 1] was read as 4 labels"),
    ("names of files and classes", {"images": IMAGES, "labels": LABELS, "filenames": np.array(["a.png"] * 4),
                                    "class_names": np.array(["cat", "dog", "owl"])}, IMAGES, 3, "ignored: filenames."),
    ("Keras", {"x_train": IMAGES, "y_train": LABELS[:, None], "x_test": IMAGES[:1], "y_test": LABELS[:1]}, IMAGES, 3,
     "'train' was taken"),
    ("a test set", {"x_test": IMAGES, "y_test": LABELS}, IMAGES, 3, "`x_test` was taken as images"),
    ("MedMNIST", {"train_images": GREY, "train_labels": LABELS[:, None].astype(np.uint8), "val_images": GREY[:1],
                  "val_labels": LABELS[:1], "test_images": GREY[:2], "test_labels": LABELS[:2]}, GREY[..., None], 3,
     "val_images, val_labels, test_images, test_labels"),
    ("X and y", {"X": IMAGES, "y": LABELS}, IMAGES, 3, "`X` was taken as images"),
    ("trainX", {"trainX": IMAGES, "trainY": LABELS}, IMAGES, 3, ""),
    ("data and labels", {"data": IMAGES, "labels": LABELS}, IMAGES, 3, ""),
    ("data and targets", {"data": IMAGES, "targets": LABELS}, IMAGES, 3, ""),
    ("data and target", {"data": IMAGES, "target": LABELS}, IMAGES, 3, ""),
    ("without names", {"arr_0": IMAGES, "arr_1": LABELS}, IMAGES, 3, ""),
    ("without names, two sets", {"arr_0": IMAGES, "arr_1": IMAGES[:2], "arr_2": LABELS, "arr_3": LABELS[:2]}, IMAGES, 3,
     "ignored: arr_1, arr_3."),
    ("one array of any name", {"digits": IMAGES}, IMAGES, None, "`digits` was taken as images"),
    ("objects beside", {"images": IMAGES, "labels": LABELS, "paths": np.array(["a", None], dtype=object)}, IMAGES, 3,
     "ignored: paths."),
    ("pixels of 0 and 1", {"images": IMAGES % 2}, IMAGES % 2, None, "No pixel of `images` is larger than 1"),
]  # fmt: skip


@pytest.mark.parametrize(("arrays", "images", "classes", "note"), [row[1:] for row in SENT], ids=[row[0] for row in SENT])
def test_what_people_send_becomes_what_they_mean(arrays: dict[str, Any], images: Any, classes: int | None, note: str) -> None:
    found = check_arrays(**arrays)
    assert (found.facts.kind, found.facts.classes) == ("images", classes)
    assert found.images.dtype == (np.float32 if images.dtype == np.float32 else np.uint8)
    assert found.images.tolist() == images.tolist()
    assert note in found.notes if note else not found.facts.notes or "taken as images" in found.notes
    pixels = found.images / (1 if images.dtype == np.float32 else 255)
    assert found.facts.mean == pytest.approx(pixels.mean((0, 1, 2)))
    assert found.facts.std == pytest.approx(pixels.std((0, 1, 2)), abs=1e-6)
    if classes is None:
        assert found.arrays.keys() == {"images"}
    else:
        assert found.arrays["labels"].tolist() == LABELS.tolist()
        assert found.facts.labels == "classes"


def test_names_of_classes_are_kept() -> None:
    names = ["cat", "dog", "owl\x00\n"]
    assert check_arrays(images=IMAGES, labels=LABELS, class_names=np.array(names)).facts.class_names == ["cat", "dog", "owl"]
    assert check_arrays(images=IMAGES, labels=LABELS, classes=np.array(names, "S")).facts.class_names == ["cat", "dog", "owl"]
    for unfit in (np.array(["cat", "dog"]), np.arange(3), np.array([["cat"] * 3]), np.array(["long" * 9999] * 3)):
        assert check_arrays(images=IMAGES, labels=LABELS, class_names=unfit).facts.class_names is None


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("labels alone", {"labels": LABELS}, "labels"),
    ("other arrays", {"foo": IMAGES, "bar": IMAGES}, "foo, bar"),
    ("no arrays", {}, "no files"),
    ("objects", {"images": np.array([OrderedDict(a=1)], dtype=object)}, r"`images` \(object of shape \[1\]\) holds Python obj"),
    ("texts", {"images": np.array(["a", "b"])}, r"`images` \(<U1 of shape \[2\]\)"),
    ("complex", {"images": GREY.astype(complex)}, r"complex128 of shape \[4, 8, 6\]\) has a dtype that pixels"),
    ("dates", {"images": GREY.astype("M8[s]")}, "datetime64"),
    ("no images", {"images": IMAGES[:0]}, r"\[0, 8, 6, 3\]\) holds no pixels"),
    ("one image", {"images": IMAGES[0]}, "if it is one image, give it a first axis"),
    ("one number", {"images": np.uint8(1)}, r"of shape \[\]"),
    ("rows of pixels", {"images": np.zeros((4, 784), np.uint8)}, "reshape the array to 4 x 28 x 28"),
    ("MATLAB", {"images": IMAGES.transpose(1, 2, 3, 0).repeat(9, 3)}, r"transpose it with \(3, 0, 1, 2\)"),
    ("two channels first", {"images": np.zeros((2, 2, 8, 8), np.uint8)}, r"\[2, 2, 8, 8\]\) is no array of images"),
    ("volumes", {"images": np.zeros((2, 8, 8, 8, 1), np.uint8)}, "`inputs`"),
    ("not a number", {"images": np.full((2, 8, 6), np.nan)}, "NaN or infinity"),
    ("normalised", {"images": FLOATS - 0.5}, "ranges from -0.4.* to 0.4.*`inputs`"),
    ("sixteen grey levels", {"images": (GREY % 17).astype(np.float32)}, "ranges from 0 to 16"),
    ("just above 1", {"images": FLOATS + 0.01}, "ranges from 0.0.* to 1.0"),
    ("uint16", {"images": IMAGES.astype(np.uint16) * 200}, "uint16 of shape .* ranges from 0 to 51000"),
    ("negative integers", {"images": IMAGES.astype(np.int16) - 1}, "ranges from -1 to 254"),
    ("flat data of bytes", {"data": np.zeros((4, 64), np.uint8)}, "4 x 8 x 8"),
]


@pytest.mark.parametrize(("arrays", "detail"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_what_is_no_images_is_refused_with_the_reason_and_what_to_send(arrays: dict[str, Any], detail: str) -> None:
    with pytest.raises(problems.BadDataset, match=detail) as refused:
        check_arrays(**arrays)
    assert "send" in str(refused.value)


def test_an_array_without_a_telling_name_may_be_inputs() -> None:
    features = np.random.default_rng(0).normal(size=(4, 20))
    found = check_arrays(X=features, y=LABELS)
    assert (found.facts.kind, found.facts.mean, found.facts.std) == ("inputs", None, None)
    assert found.arrays["inputs.inputs"].tolist() == features.astype(np.float32).tolist()
    assert found.arrays["labels"].tolist() == LABELS.tolist()
    assert "`X` was taken as inputs, which are not normalised" in found.notes
    normalised = check_arrays(x_train=FLOATS * 4 - 2)
    assert normalised.facts.kind == "inputs"
    assert "ranges from -1.9" in normalised.notes


def test_the_other_formats_of_arrays() -> None:
    buffer = BytesIO()
    np.save(buffer, IMAGES)
    assert check(buffer.getvalue()).images.tolist() == IMAGES.tolist()
    found = check(safetensors.numpy.save({"images": IMAGES, "labels": LABELS, "ids": LABELS}))
    assert found.images.tolist() == IMAGES.tolist()
    assert found.arrays["labels"].tolist() == LABELS.tolist()
    assert "ignored: ids" in found.notes
    halves = torch.tensor([[0.5, -2.0]] * 3, dtype=torch.bfloat16)
    assert check(safetensors.torch.save({"inputs": halves})).arrays["inputs.inputs"].tolist() == [[0.5, -2.0]] * 3


def test_a_file_that_ends_early_is_refused() -> None:
    buffer = BytesIO()
    np.save(buffer, IMAGES)
    files = [buffer.getvalue(), npz(images=IMAGES), safetensors.numpy.save({"images": IMAGES})]
    for content in files:
        for length in (len(content) - 1, len(content) // 2, 100, 20, 9, 8, 7, 6, 4):
            with pytest.raises(problems.BadDataset):
                check(content[:length])
