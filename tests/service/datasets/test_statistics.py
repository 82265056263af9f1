"""The mean and the standard deviation of pixels."""

import os
import resource
import tempfile

import pytest
import torch

from service.inspection import child
from service.inspection.datasets import read as datasets
from service.inspection.datasets import statistics
from tests.support.networks import npz


@pytest.mark.parametrize("shape", [(5, 7, 9, 3), (3, 40, 50, 1)])
def test_parts_of_any_size_give_the_same(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    whole = pixels.double().flatten(0, 2) / 255
    for elements in (2**24, 100, 3):
        monkeypatch.setattr(statistics, "PART_ELEMENTS", elements)
        mean, std = statistics.mean_and_std(pixels)
        assert mean == pytest.approx(whole.mean(0).tolist())
        assert std == pytest.approx(whole.std(0, correction=0).tolist())


def test_a_large_image_takes_little_memory() -> None:
    pixels = torch.zeros(1, 2**13, 2**13, 1, dtype=torch.uint8)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    statistics.mean_and_std(pixels)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**19  # KiB; all at once would take 2**20


def test_memory_that_torch_does_not_get_is_not_called_a_malformed_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def starve(*_: object, **__: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 2147483648 bytes")

    monkeypatch.setattr(child, "limit", lambda **_: None)
    monkeypatch.setattr(datasets, "read", starve)
    answer = refused(npz(images=torch.zeros(1, 2, 2, 1, dtype=torch.uint8).numpy()))
    assert answer["refused"][0] == "too-demanding"


def refused(content: bytes) -> dict[str, list[str]]:
    """What the inspecting process says of a dataset, in this process."""
    with tempfile.TemporaryFile() as source, tempfile.TemporaryFile() as target:
        source.write(content)
        source.flush()
        descriptors = os.dup(source.fileno()), os.dup(target.fileno())
        answer: dict[str, list[str]] = child.read(*descriptors, kind="dataset", seconds=10, max_bytes=1000)
        return answer
