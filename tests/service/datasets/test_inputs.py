"""Inputs in place of images: for networks that take no photographs, and for networks of several inputs."""

from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from service import problems
from tests.support.datasets import IMAGES, LABELS, check, check_arrays

SIGNALS = np.random.default_rng(0).normal(size=(4, 2, 100)).astype(np.float32)
TOKENS = np.arange(24).reshape(4, 6)


def test_inputs_are_kept_as_they_are() -> None:
    found = check_arrays(inputs=SIGNALS, labels=LABELS)
    assert (found.facts.kind, found.facts.labels, found.facts.classes) == ("inputs", "classes", 3)
    assert found.facts.tensors == {"inputs.inputs": ("F32", [4, 2, 100]), "labels": ("I64", [4])}
    assert found.arrays["inputs.inputs"].tolist() == SIGNALS.tolist()
    assert found.facts.notes == []
    assert (found.facts.mean, found.facts.std) == (None, None)


@pytest.mark.parametrize(
    ("given", "stored"),
    [("f8", "F32"), ("f2", "F32"), (">f4", "F32"), ("i8", "I64"), ("u1", "U8"), ("i4", "I32"), ("u2", "I32"), ("u4", "I64"),
     ("u8", "I64"), ("?", "BOOL")],
)  # fmt: skip
def test_dtypes_of_inputs(given: str, stored: str) -> None:
    found = check_arrays(inputs=TOKENS.astype(given))
    assert found.facts.tensors["inputs.inputs"] == (stored, [4, 6])
    assert found.arrays["inputs.inputs"].tolist() == TOKENS.astype(given).tolist()


@pytest.mark.parametrize("names", [("inputs.left", "inputs.right"), ("inputs/left", "inputs/right")])
def test_several_inputs_have_names(names: tuple[str, str]) -> None:
    arrays: dict[str, Any] = {names[0]: SIGNALS, names[1]: TOKENS, "extra": TOKENS}
    for found in (check_arrays(**arrays), check(safetensors.numpy.save(arrays))):
        assert found.arrays.keys() == {"inputs.left", "inputs.right"}
        assert found.arrays["inputs.left"].tolist() == SIGNALS.tolist()
        assert found.arrays["inputs.right"].tolist() == TOKENS.tolist()
        assert "ignored: extra" in found.notes


def test_inputs_are_taken_before_images() -> None:
    found = check_arrays(inputs=SIGNALS, images=IMAGES, labels=LABELS)
    assert found.arrays.keys() == {"inputs.inputs", "labels"}
    assert "ignored: images" in found.notes


@pytest.mark.parametrize(
    ("arrays", "detail"),
    [
        ({"inputs": np.full((2, 3), np.nan)}, r"`inputs` \(float64 of shape \[2, 3\]\) holds NaN"),
        ({"inputs": np.full((2, 3), 1e300)}, "which float32 can't hold"),
        ({"inputs": np.full((2, 3), 2**64 - 1, np.uint64)}, "int64 can't hold"),
        ({"inputs": np.array(["a", "b"])}, r"<U1 of shape \[2\]\) has a dtype"),
        ({"inputs": np.array(["a", None], dtype=object)}, "Python objects"),
        ({"inputs": np.float32(1)}, r"float32 of shape \[\]\) has no rows"),
        ({"inputs": SIGNALS[:0]}, r"\[0, 2, 100\]\) has no rows"),
        ({"inputs": SIGNALS, "labels": LABELS[:3]}, r"`labels` \(int64 of shape \[3\]\) does not fit 4 rows"),
        ({"inputs.a": SIGNALS, "inputs.b": TOKENS[:3]}, "`inputs.a` 4, `inputs.b` 3"),
        ({"inputs.a": SIGNALS, "inputs/a": SIGNALS}, "one of two arrays for the same input"),
        ({f"inputs.{number}": LABELS for number in range(101)}, "101 inputs"),
        ({"inputs." + "n" * 201: LABELS}, "too long"),
        ({"inputs.a\nb": LABELS}, "not printable"),
    ],
)
def test_what_can_be_no_input_is_refused(arrays: dict[str, Any], detail: str) -> None:
    with pytest.raises(problems.BadDataset, match=detail):
        check_arrays(**arrays)
