from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from nern.errors import ImpossibleRequest, InconsistentOptions, NotRepresentable, UnknownArchitecture, UnusableImages
from nern.planning import DataFacts, ImageFacts, NetworkFacts, NoiseFacts, make_plan
from nern.request import DecoupledRequest, read_request
from nern.training import train
from tests.support.networks import images, odd, resnet8


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 10, "reconstruction_steps": 11},
        {"steps": 10, "reconstruction_steps": 10, "bits": 8},
        {"recipe": "paper", "steps": 10, "reconstruction_steps": 11},
        {"recipe": "regularised", "reconstruction_steps": 0},
    ],
)
def test_phases_must_fit_together(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="reconstruction_steps"):
        read_request(wrong)


def test_images_that_do_not_fit_the_network_are_refused_before_training() -> None:
    with pytest.raises(UnusableImages, match="can't take these images"):
        train(resnet8(), DecoupledRequest(), architecture="cifar/resnet8", data=images(channels=1))
    with pytest.raises(UnusableImages, match="at least 2"):
        train(resnet8(), DecoupledRequest(), architecture="cifar/resnet8", data=images(1))


def test_labels_that_the_network_has_no_classes_for_are_refused() -> None:
    made = images()
    assert made.labels_N is not None
    wrong = replace(made, labels_N=made.labels_N + 5)
    with pytest.raises(UnusableImages, match="classes"):
        train(resnet8(), DecoupledRequest(), architecture="cifar/resnet8", data=wrong)


@pytest.mark.parametrize(
    "wrong",
    [torch.full((2, 2, 3, 3), torch.nan), torch.full((2, 2, 3, 3), 1e60, dtype=torch.float64)],
    ids=["no numbers", "too large for float32"],
)
def test_weights_that_are_not_finite_are_refused_by_name(wrong: Tensor) -> None:
    with pytest.raises(NotRepresentable, match=r"layer2\.0\.conv1\.weight"):
        train(resnet8() | {"layer2.0.conv1.weight": wrong}, DecoupledRequest(steps=1, hidden=8))


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        (torch.zeros(2, dtype=torch.complex128), r"of torch\.complex128"),
        (torch.eye(2).to_sparse(), "not a dense tensor on the CPU"),
        (torch.empty(2, device="meta"), "not a dense tensor on the CPU"),
    ],
    ids=["complex", "sparse", "meta"],
)
def test_what_an_artefact_cannot_keep_is_refused_before_training(odd: Tensor, reason: str) -> None:
    with pytest.raises(NotRepresentable, match=f"'odd' is {reason}"):
        train(resnet8() | {"odd": odd}, DecoupledRequest(steps=1, hidden=8))


def test_a_network_whose_outputs_are_no_numbers_is_refused_before_training() -> None:
    wrong = resnet8() | {"bn1.running_var": -torch.ones(16)}
    with pytest.raises(UnusableImages, match="outputs of the original network for these images are not finite"):
        train(wrong, DecoupledRequest(), architecture="cifar/resnet8", data=images())


def test_without_data_the_architecture_is_checked_all_the_same() -> None:
    with pytest.raises(UnknownArchitecture, match="is not a torchvision/resnet18"):
        train(resnet8(), DecoupledRequest(), architecture="torchvision/resnet18")


@pytest.mark.parametrize("recipe", ["other", ["decoupled"], 3])
def test_there_are_three_recipes(recipe: object) -> None:
    with pytest.raises(ValueError, match="there is no recipe"):
        read_request({"recipe": recipe})


def test_frequencies_that_machines_disagree_on_are_refused() -> None:
    assert DecoupledRequest(base=1.25, levels=60).levels == 60
    with pytest.raises(ValueError, match="base to the power of levels"):
        DecoupledRequest(base=1.25, levels=128)


def test_what_does_not_fit_the_network_is_refused() -> None:
    with pytest.raises(UnknownArchitecture):
        train(resnet8(), DecoupledRequest(), architecture="cifar/resnet20", data=images())
    with pytest.raises(NotRepresentable):
        train(resnet8(), DecoupledRequest(layers=["bn1.weight"]))


NETWORK = NetworkFacts(resnet8(), "cifar/resnet8")
UNKNOWN = NetworkFacts(odd(), None)
DATASET = ImageFacts(images=40, channels=3, classes=10)


@pytest.mark.parametrize(
    ("wanted", "network", "data", "kind", "pointer"),
    [
        ({}, NetworkFacts(odd(), "cifar/resnet8"), None, UnknownArchitecture, "/architecture"),
        ({}, NetworkFacts(resnet8(), "cifar/resnet9"), None, UnknownArchitecture, "/architecture"),
        ({"layers": ["nope"]}, NETWORK, None, NotRepresentable, "/layers"),
        ({"layers": "paper"}, UNKNOWN, None, NotRepresentable, "/layers"),
        ({}, NETWORK, replace(DATASET, images=1), UnusableImages, "/data/dataset_id"),
        ({}, NETWORK, replace(DATASET, channels=1), UnusableImages, "/data/dataset_id"),
        ({}, NETWORK, replace(DATASET, classes=11), UnusableImages, "/data/dataset_id"),
        ({"target": {"drop": 1.0}}, NETWORK, replace(DATASET, classes=None), UnusableImages, "/target"),
        ({"target": {"drop": 1.0}}, NETWORK, NoiseFacts("uniform"), UnusableImages, "/target"),
        ({"target": {"drop": 1.0}}, NETWORK, None, UnusableImages, "/target"),
        ({"recipe": "regularised"}, NETWORK, None, UnusableImages, "/data"),
        ({"recipe": "regularised"}, UNKNOWN, DATASET, UnusableImages, "/data"),
        ({"recipe": "paper", "reconstruction_steps": 100_000}, NETWORK, DATASET, InconsistentOptions, "/reconstruction_steps"),
    ],
)
def test_a_refusal_points_at_the_field_at_fault(
    wanted: dict[str, Any], network: NetworkFacts, data: DataFacts | None, kind: type[ImpossibleRequest], pointer: str
) -> None:
    with pytest.raises(kind) as refused:
        make_plan(read_request(wanted), network, data)
    assert refused.value.pointer == pointer
