"""Small files of datasets, and what the inspecting process makes of them."""

import zipfile
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from nern import tensorfile
from service import problems
from service.inspection import child
from service.inspection.inspect import DatasetFacts, dataset_facts
from service.inspection.refusal import Refusal
from tests.support.networks import npz

AnyArray = npt.NDArray[Any]

IMAGES = np.arange(4 * 8 * 6 * 3).reshape(4, 8, 6, 3).astype(np.uint8)
LABELS = np.array([2, 0, 1, 2])


@dataclass(frozen=True)
class Checked:
    """What became of a dataset: the facts, and its tensors as arrays."""

    facts: DatasetFacts
    arrays: dict[str, AnyArray]

    @property
    def images(self) -> AnyArray:
        return self.arrays["images"]

    @property
    def notes(self) -> str:
        return " ".join(self.facts.notes)


def check(content: bytes, *, max_bytes: int = 10**7, size: tuple[int, int] | None = None) -> Checked:
    """What the inspecting process does with a dataset, in this one. Raises Problem."""
    output = BytesIO()
    try:
        answer = child.inspect_dataset(BytesIO(content), output, max_bytes, size)
    except Refusal as refusal:
        raise problems.KINDS[refusal.slug](refusal.detail) from None
    written = output.getvalue()
    entries, _ = tensorfile.parse_header(written[8 : 8 + int.from_bytes(written[:8], "little")])
    return Checked(
        dataset_facts(answer),
        {
            name: tensorfile.from_bytes(written[entry.start : entry.stop], entry.dtype, entry.shape).numpy()
            for name, entry in entries.items()
        },
    )


def check_arrays(**arrays: Any) -> Checked:
    """What becomes of an .npz file of arrays."""
    return check(npz(**arrays))


def picture(
    height: int = 8, width: int = 6, *, mode: str = "RGB", format: str = "PNG", value: int | None = None, **options: Any
) -> bytes:
    """The bytes of an image file: random pixels, or all of one value."""
    random = np.random.default_rng(height * 1000 + width)
    if mode == "I;16":
        image = Image.fromarray(random.integers(0, 2**16, (height, width), np.uint16))
    else:
        pixels = random.integers(0, 256, (height, width, 3), np.uint8)
        image = Image.fromarray(pixels if value is None else np.full_like(pixels, value)).convert(mode)
    buffer = BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def archive(members: dict[str, bytes]) -> bytes:
    """The bytes of a zip archive with these members."""
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()
