from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from nern.errors import BadSnapshot, OtherTraining
from nern.images import Images, Noise
from nern.layers import StateDict
from nern.network import Network
from nern.request import AccuracyTarget, DecoupledRequest, read_request
from nern.training import Interrupted, Progress, Snapshot, train
from tests.support.networks import images, resnet8


@pytest.mark.parametrize("data", [images(), Noise("normal", (3, 8, 8))])
def test_a_seed_decides_everything(data: Images | Noise) -> None:
    def weights(seed: int) -> Tensor:
        config = DecoupledRequest(steps=12, hidden=8, seed=seed)
        trained = train(Network(resnet8(), "cifar/resnet8"), config, data=data)
        return torch.cat([parameter.flatten() for parameter in trained.representation.predictor.parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


@pytest.mark.parametrize(
    ("recipe", "data", "at"),
    [
        ("decoupled", images(), 5),
        ("decoupled", images(), 10),
        ("decoupled", images(), 12),
        ("decoupled", images(), 13),
        ("decoupled", images(), 14),
        ("decoupled", images(), 15),
        ("decoupled", Noise("matched", (3, 8, 8)), 1),
        ("decoupled", Noise("matched", (3, 8, 8)), 15),
        ("regularised", images(), 1),
        ("regularised", images(), 5),
        ("paper", images(), 5),
        ("paper", images(), 12),
    ],
)
def test_a_training_goes_on_from_a_snapshot_bit_for_bit(recipe: str, data: Images | Noise, at: int, tmp_path: Path) -> None:
    given: dict[str, Any] = {"steps": 16, "reconstruction_steps": 10, "hidden": 8, "image_batch": 4, "kernel_batch": 3000}
    given |= {"synthesis_steps": 2, "synthesised_images": 1}
    given |= {"smoothing_steps": 3} if recipe == "regularised" else {}
    config = read_request({"recipe": recipe, **given} | ({} if recipe == "paper" else {"bits": 4, "compression_steps": 3}))
    file = tmp_path / "snapshot.safetensors"

    def save(progress: Progress) -> None:
        if progress.step == at:
            progress.snapshot().write(file)

    arguments: dict[str, Any] = {"data": data}
    network = Network(resnet8(), "cifar/resnet8")
    with patch("nern.training.loop.MIN_EVALUATION_STEPS", 2):
        whole = train(network, config, on_progress=save, **arguments)
        steps: list[int] = []
        snapshot = Snapshot.read(file)
        train(network, config, snapshot=snapshot, **arguments)
        resumed = train(
            network, config, on_progress=lambda progress: steps.append(progress.step), snapshot=snapshot, **arguments
        )
    assert steps == list(range(at + 1, steps[-1] + 1))
    assert (resumed.best, resumed.last) == (whole.best, whole.last)
    for name, tensor in whole.representation.predictor.state_dict().items():
        assert torch.equal(resumed.representation.predictor.state_dict()[name], tensor)


OTHER_PIXELS = replace(images(), pixels_NHWC=255 - images().pixels_NHWC)


OTHER_LABELS = replace(images(), labels_N=None)


@pytest.mark.parametrize(
    ("network", "config", "data"),
    [
        (resnet8(), DecoupledRequest(steps=1, hidden=9), images()),
        (resnet8(seed=1), DecoupledRequest(steps=1, hidden=8), images()),
        (resnet8() | {"bn1.bias": torch.ones(16)}, DecoupledRequest(steps=1, hidden=8), images()),
        (resnet8(), DecoupledRequest(steps=1, hidden=8), OTHER_PIXELS),
        (resnet8(), DecoupledRequest(steps=1, hidden=8), OTHER_LABELS),
        (resnet8(), DecoupledRequest(steps=1, hidden=8), Noise("matched", (3, 8, 8))),
        (resnet8(), DecoupledRequest(steps=1, hidden=8), None),
        (resnet8(), DecoupledRequest(steps=1, target=AccuracyTarget(drop=1.0)), images()),
    ],
    ids=["width", "represented weights", "kept tensors", "images", "labels", "noise", "no data", "target"],
)
def test_a_snapshot_of_another_training_is_refused(
    network: StateDict, config: DecoupledRequest, data: Images | Noise | None
) -> None:
    snapshots = []

    def save(progress: Progress) -> None:
        snapshots.append(progress.snapshot())

    train(Network(resnet8(), "cifar/resnet8"), DecoupledRequest(steps=1, hidden=8), data=images(), on_progress=save)
    with pytest.raises(ValueError, match="another training"):
        train(Network(network, "cifar/resnet8"), config, data=data, snapshot=snapshots[0])


def snapshot_of(request: DecoupledRequest, **arguments: Any) -> Snapshot:
    """The last snapshot of a training. With data, it distils."""
    taken: list[Snapshot] = []
    network = Network(resnet8(), "cifar/resnet8")
    train(network, request, on_progress=lambda progress: taken.append(progress.snapshot().detached()), **arguments)
    return taken[-1]


def test_a_snapshot_is_known_by_the_hash_of_its_inputs_if_there_is_one() -> None:
    request = DecoupledRequest(steps=1, hidden=8)
    snapshot = snapshot_of(request, inputs_hash="one")
    with patch("nern.training.subject.digest", side_effect=AssertionError("the hash was given")):
        assert train(Network(resnet8(), "cifar/resnet8"), request, inputs_hash="one", snapshot=snapshot).steps == 1
        with pytest.raises(OtherTraining, match="another training"):
            train(Network(resnet8(), "cifar/resnet8"), request, inputs_hash="two", snapshot=snapshot)


def test_a_snapshot_of_more_steps_than_there_are_is_refused() -> None:
    request = DecoupledRequest(steps=1, hidden=8)
    with pytest.raises(OtherTraining, match="more steps"):
        train(Network(resnet8(), "cifar/resnet8"), request, snapshot=replace(snapshot_of(request), step=9))


def test_one_training_does_not_go_on_with_the_snapshot_of_a_search_for_its_size() -> None:
    arguments: dict[str, Any] = {"data": images()}
    snapshot = snapshot_of(DecoupledRequest(steps=2, reconstruction_steps=1, target=AccuracyTarget(drop=1.0)), **arguments)
    assert snapshot.search is not None
    [hidden] = {len(weight) for name, weight in snapshot.predictor.items() if name == "trunk.0.weight"}
    same = DecoupledRequest(steps=2, reconstruction_steps=1, hidden=hidden)
    with pytest.raises(OtherTraining, match="another training"):
        train(Network(resnet8(), "cifar/resnet8"), same, snapshot=snapshot, **arguments)
    assert train(Network(resnet8(), "cifar/resnet8"), same, snapshot=replace(snapshot, search=None), **arguments).steps == 2


def test_a_detached_snapshot_does_not_change_with_the_training() -> None:
    taken: list[Snapshot] = []
    request = DecoupledRequest(steps=4, hidden=8)
    train(Network(resnet8()), request, on_progress=lambda progress: taken.append(progress.snapshot().detached()))
    first, last = (snapshot.predictor["trunk.0.weight"] for snapshot in (taken[0], taken[-1]))
    assert not torch.equal(first, last)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda content: content[:-1], "damaged"),
        (lambda content: content[:100], "damaged"),
        (lambda content: b"", "damaged"),
        (lambda content: content.replace(b'\\"version\\": 3', b'\\"version\\": 9'), "version 9"),
        (lambda content: content.replace(b'\\"step\\"', b'\\"pets\\"'), "damaged"),
    ],
    ids=["short", "header", "empty", "version", "field"],
)
def test_a_file_that_is_no_snapshot_is_refused(damage: Callable[[bytes], bytes], reason: str, tmp_path: Path) -> None:
    file = tmp_path / "snapshot.safetensors"
    snapshot_of(DecoupledRequest(steps=1, hidden=8)).write(file)
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(BadSnapshot, match=reason):
        Snapshot.read(file)


class Interrupting:
    """An `on_progress` and a cancellation, one of which interrupts: at its call with the number `at`, counted over both."""

    def __init__(self, at: int) -> None:
        self._left = at
        self.steps: list[int] = []

    def cancellation(self) -> None:
        self._left -= 1
        if self._left == 0:
            raise Interrupted

    def on_progress(self, progress: Progress) -> None:
        assert progress.snapshot().steps == progress.step
        if not self.steps or progress.step != self.steps[-1]:
            self.steps.append(progress.step)
        self.cancellation()


@pytest.mark.parametrize(
    "wanted",
    [{"hidden": 8, "bits": 4, "compression_steps": 3}, {"target": AccuracyTarget(drop=1.0)}],
    ids=["one training", "a search"],
)
def test_an_interrupted_training_loses_no_step_wherever_it_was(wanted: dict[str, Any], tmp_path: Path) -> None:
    request = DecoupledRequest(steps=8, reconstruction_steps=4, image_batch=4, kernel_batch=3000, **wanted)
    network, data, file = Network(resnet8(), "cifar/resnet8"), images(), tmp_path / "snapshot"
    with patch("nern.training.loop.MIN_EVALUATION_STEPS", 2):
        watch = Interrupting(at=0)
        whole = train(network, request, data=data, on_progress=watch.on_progress, cancellation=watch.cancellation)
        taken, snapshot, interruptions, at = 0, None, 0, 3
        trained = None
        while trained is None:
            watch = Interrupting(at)
            try:
                trained = train(
                    network,
                    request,
                    data=data,
                    on_progress=watch.on_progress,
                    cancellation=watch.cancellation,
                    snapshot=snapshot,
                )
            except Interrupted as interruption:
                interruptions += 1
                if interruption.snapshot is not None:
                    interruption.snapshot.write(file)
                    snapshot = Snapshot.read(file)
            if watch.steps and trained is None:
                # An evaluation may have been interrupted, and the step before it was not reported then.
                assert snapshot is not None
                assert snapshot.steps - watch.steps[-1] in (0, 1)
            taken += len(watch.steps)
            # What comes before the first step of an attempt calls the cancellation too.
            at = 3 + interruptions % 4 if watch.steps else at + 2
    assert interruptions > 5
    assert taken <= whole.steps + interruptions  # an evaluation that was interrupted is reported after its step
    assert (trained.best, trained.last, trained.steps) == (whole.best, whole.last, whole.steps)
    for name, tensor in whole.representation.predictor.state_dict().items():
        assert torch.equal(trained.representation.predictor.state_dict()[name], tensor)
    again = train(network, request, data=data, snapshot=whole.snapshot)
    assert (again.best, again.steps) == (whole.best, whole.steps)
    assert whole.snapshot.steps == again.snapshot.steps == whole.steps
