"""What becomes of an uploaded dataset."""

import collections
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nern import tensorfile
from service import problems
from service.inspection import child
from service.inspection.inspect import DatasetFacts
from service.inspection.refusal import Refusal
from tests.support.networks import npz, zipped


def check_dataset(folder: Path, content: bytes, max_bytes: int = 10**7) -> DatasetFacts:
    """What the inspecting process does with a dataset, in this one."""
    output = BytesIO()
    try:
        answer = child.inspect_dataset(BytesIO(content), output, max_bytes)
    except Refusal as refusal:
        raise problems.KINDS[refusal.slug](refusal.detail) from None
    (folder / "tensors").write_bytes(output.getvalue())
    return DatasetFacts(tuple(answer["shape"]), answer["classes"], tuple(answer["mean"]), tuple(answer["std"]))


IMAGES = np.arange(2 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 3)


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_dataset_is_described_and_kept(tmp_path: Path, order: Any) -> None:
    facts = check_dataset(tmp_path, npz(images=np.array(IMAGES, order=order), labels=np.array([4, 1], dtype=np.int32)))
    assert (facts.shape, facts.classes) == ((2, 3, 4, 3), 5)
    assert facts.mean == pytest.approx((IMAGES / 255).mean((0, 1, 2)))
    assert facts.std == pytest.approx((IMAGES / 255).std((0, 1, 2)))
    tensors = tensorfile.load(tmp_path / "tensors")
    assert tensors["images"].tolist() == IMAGES.tolist()
    assert tensors["labels"].tolist() == [4, 1]


def test_labels_are_optional(tmp_path: Path) -> None:
    assert check_dataset(tmp_path, npz(images=IMAGES)).classes is None


BAD_DATASETS: list[tuple[str, bytes, str]] = [
    ("text", b"hello", "zip archive"),
    ("truncated", npz(images=IMAGES)[:200], "zip archive"),
    ("other arrays", npz(x=IMAGES, y=IMAGES), "x.npy, y.npy"),
    ("an array too many", npz(images=IMAGES, extra=IMAGES), "extra.npy"),
    ("floats", npz(images=IMAGES.astype(np.float32)), "float32"),
    ("no channels", npz(images=IMAGES[..., 0]), r"\[2, 3, 4\]"),
    ("channels first", npz(images=np.zeros((2, 3, 32, 32), np.uint8)), r"\[2, 3, 32, 32\]"),
    ("no images", npz(images=IMAGES[:0]), r"\[0, 3, 4, 3\]"),
    ("too few labels", npz(images=IMAGES, labels=np.zeros(1, np.int64)), r"labels are int64 of shape \[1\]"),
    ("labels that are no numbers", npz(images=IMAGES, labels=np.array(["a", "b"])), "labels are"),
    ("negative labels", npz(images=IMAGES, labels=np.array([-1, 0])), "from -1"),
    ("objects", npz(images=np.array([collections.OrderedDict(a=1)], dtype=object)), "Python objects"),
    ("no arrays inside", zipped(images_npy=b"nothing").replace(b"images_npy", b"images.npy"), "no array"),
]


@pytest.mark.parametrize(("content", "detail"), [row[1:] for row in BAD_DATASETS], ids=[row[0] for row in BAD_DATASETS])
def test_bad_datasets_are_refused_with_the_reason(tmp_path: Path, content: bytes, detail: str) -> None:
    with pytest.raises(problems.BadDataset, match=detail):
        check_dataset(tmp_path, content)


def test_a_dataset_that_unpacks_to_too_much_is_refused(tmp_path: Path) -> None:
    buffer = BytesIO()
    np.savez_compressed(buffer, images=np.zeros((1000, 100, 100, 3), np.uint8))
    assert len(buffer.getvalue()) < 100_000
    with pytest.raises(problems.BadDataset, match="more than 10000000 bytes unpacked"):
        check_dataset(tmp_path, buffer.getvalue())
