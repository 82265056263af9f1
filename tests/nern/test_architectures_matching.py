"""Files that are a known network and something else: prefixes, other heads, tensors beside the network, near misses."""

from collections import OrderedDict
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torchvision import models

from nern import architectures
from nern.architectures import shapes_of
from nern.architectures.cifar import NETWORKS, ResNet
from nern.architectures.heads import parse
from nern.architectures.skeleton import skeleton
from nern.errors import UnknownArchitecture
from nern.layers import StateDict
from tests.support.networks import filled, odd, resnet8

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def small() -> nn.Module:
    return filled(NETWORKS["cifar/shufflenetv2_x0_5"][0](10))


def prefixed(state_dict: StateDict, prefix: str) -> StateDict:
    return {f"{prefix}{name}": tensor for name, tensor in state_dict.items()}


@pytest.mark.parametrize("prefix", ["module.", "backbone.", "model.encoder._orig_mod."])
def test_a_prefix_is_no_obstacle_and_comes_back(prefix: str) -> None:
    state_dict = prefixed(resnet8(), prefix)
    assert architectures.recognise(shapes_of(state_dict)) == ["cifar/resnet8"]
    match = architectures.match("cifar/resnet8", shapes_of(state_dict))
    assert match.view.bare["conv1.weight"] == f"{prefix}conv1.weight"
    assert match.groups[f"{prefix}conv1.weight"] == 1
    assert match.view.of(state_dict).keys() == resnet8().keys()
    assert torch.equal(
        architectures.build("cifar/resnet8", state_dict)(IMAGES), architectures.build("cifar/resnet8", resnet8())(IMAGES)
    )


def test_a_wrapper_inside_names_is_no_obstacle() -> None:
    state_dict = {name.replace("layer1.", "layer1.module."): tensor for name, tensor in resnet8().items()}
    assert architectures.recognise(shapes_of(state_dict)) == ["cifar/resnet8"]
    match = architectures.match("cifar/resnet8", shapes_of(state_dict))
    assert match.groups["layer1.module.0.conv1.weight"] == 1
    assert architectures.build("cifar/resnet8", state_dict)(IMAGES).shape == (2, 10)


@pytest.mark.parametrize(
    "foreign",
    [
        {"n_averaged": torch.tensor(3)},
        {"criterion.weight": torch.ones(10)},
        {"mean": torch.zeros(1, 3, 1, 1), "std": torch.ones(1, 3, 1, 1)},
        {"unused.0.weight": torch.ones(10, 10, 3, 3)},
    ],
)
def test_tensors_beside_the_network_are_left_out(foreign: StateDict) -> None:
    state_dict = foreign | resnet8()
    assert architectures.recognise(shapes_of(state_dict)) == ["cifar/resnet8"]
    match = architectures.match("cifar/resnet8", shapes_of(state_dict))
    assert match.view.bare.keys() == resnet8().keys()
    assert architectures.build("cifar/resnet8", state_dict)(IMAGES).shape == (2, 10)


def test_a_small_part_of_a_file_is_not_the_network_unless_the_job_says_so() -> None:
    state_dict = prefixed(resnet8(), "student.") | {"teacher.weight": torch.ones(400, 400)}
    assert architectures.recognise(shapes_of(state_dict)) == []
    assert architectures.match("cifar/resnet8", shapes_of(state_dict)).view.prefix == "student."


def test_a_backbone_in_a_larger_network_is_not_taken_for_the_network() -> None:
    backbone = {name: tensor for name, tensor in resnet8().items() if not name.startswith("linear")}
    decoder = {"decoder.weight": torch.ones(64, 64, 3, 3)}
    assert architectures.recognise(shapes_of(prefixed(backbone, "backbone.") | decoder)) == []
    assert architectures.recognise(shapes_of(prefixed(backbone, "backbone."))) == ["cifar/resnet8"]


HEADS = [
    (nn.Sequential(nn.Dropout(), nn.Linear(1024, 4)), []),
    (nn.Sequential(nn.Linear(1024, 20), nn.ReLU(), nn.Linear(20, 4)), ["1"]),
    (nn.Sequential(nn.Linear(1024, 20), nn.ReLU(), nn.Dropout(), nn.Linear(20, 4)), ["1"]),
    (nn.Sequential(nn.Linear(1024, 20), nn.BatchNorm1d(20), nn.ReLU(), nn.Linear(20, 4)), ["2"]),
    (nn.Sequential(nn.BatchNorm1d(1024), nn.Dropout(), nn.Linear(1024, 4, bias=False)), []),
    (nn.Sequential(nn.LayerNorm(1024), nn.Linear(1024, 20), nn.Linear(20, 4)), []),
    (nn.Sequential(OrderedDict(fc1=nn.Linear(1024, 20), relu=nn.ReLU(), fc2=nn.Linear(20, 4))), ["fc1_relu"]),
    (nn.Linear(1024, 4, bias=False), []),
]


@pytest.mark.parametrize(("head", "activations"), HEADS)
def test_another_head_is_built_as_it_was(head: nn.Module, activations: list[str]) -> None:
    network = small()
    network.fc = head
    network = filled(network)
    state_dict = network.state_dict()
    assert architectures.recognise(shapes_of(state_dict)) == ["torchvision/shufflenet_v2_x0_5"]
    match = architectures.match("cifar/shufflenetv2_x0_5", shapes_of(state_dict))
    assert match.head is not None
    assert (match.classes, match.head.own, match.head.activations) == (4, False, activations)
    assert [place for place in activations if f"fc.{place}" not in " ".join(match.notes)] == []
    rebuilt = architectures.build("cifar/shufflenetv2_x0_5", state_dict)
    torch.testing.assert_close(rebuilt(IMAGES), network(IMAGES))


def test_a_whole_classifier_in_place_of_a_sequence_is_built_as_it_was() -> None:
    network = NETWORKS["cifar/vgg11"][1](10)
    network.classifier = nn.Sequential(nn.Linear(512, 30), nn.ReLU(), nn.Dropout(), nn.Linear(30, 7))
    network = filled(network)
    assert architectures.recognise(shapes_of(network.state_dict())) == ["cifar/vgg11"]
    rebuilt = architectures.build("cifar/vgg11", network.state_dict())
    torch.testing.assert_close(rebuilt(IMAGES), network(IMAGES))
    # The pooling of torchvision's network leaves 49 times as many numbers.
    with pytest.raises(UnknownArchitecture):
        architectures.build("torchvision/vgg11", network.state_dict())


def test_a_network_without_its_head_gives_features() -> None:
    network = ResNet(8).eval()
    state_dict = {name: tensor for name, tensor in network.state_dict().items() if not name.startswith("linear")}
    assert architectures.recognise(shapes_of(state_dict)) == ["cifar/resnet8"]
    match = architectures.match("cifar/resnet8", shapes_of(state_dict))
    assert (match.classes, match.outputs) == (0, {"features": "features"})
    assert match.notes == ["the head 'linear' is missing: the outputs of the network are features"]
    features = architectures.build("cifar/resnet8", state_dict)(IMAGES)
    assert torch.equal(network.get_submodule("linear")(features), network(IMAGES))


@pytest.mark.parametrize(
    "shapes",
    [
        {"0.weight": (4, 65), "0.bias": (4,)},
        {"0.weight": (4, 64), "0.bias": (5,)},
        {"0.weight": (4, 64), "1.weight": (4, 4, 3)},
        {"0.weight": (4, 64), "weight": (4, 64)},
        {"0.0.weight": (4, 64)},
        {"0.weight": (4, 64), "0.scale": (4,)},
        {"0.weight": (0, 64)},
        {"0.weight": (64,), "0.bias": (64,)},
    ],
)
def test_a_head_of_another_kind_is_none(shapes: dict[str, tuple[int, ...]]) -> None:
    assert parse("fc", shapes, 64) is None


def test_numbered_layers_of_a_head_may_be_in_any_order() -> None:
    head = parse("fc", {"10.weight": (4, 8), "2.weight": (8, 64)}, 64)
    assert head is not None
    assert [layer.name for layer in head.layers] == ["2", "10"]
    assert head.activations == ["3"]


def test_strides_do_not_show_in_shapes_so_both_networks_are_candidates() -> None:
    ten, seven = (shapes_of(skeleton(partial(models.mobilenet_v2, num_classes=classes)).state_dict()) for classes in (10, 7))
    assert architectures.recognise(ten) == ["cifar/mobilenetv2_x1_0", "torchvision/mobilenet_v2"]
    # With seven classes, the network for CIFAR is unlikely, but a job may name it.
    assert architectures.recognise(seven) == ["torchvision/mobilenet_v2"]
    assert architectures.match("cifar/mobilenetv2_x1_0", seven).image_size == 32
    match = architectures.match("torchvision/mobilenet_v2", seven)
    assert match.alternatives == ("cifar/mobilenetv2_x1_0",)
    assert "cifar/mobilenetv2_x1_0" in " ".join(match.notes)


def test_a_resnet_with_a_small_stem_has_two_readings() -> None:
    network = models.resnet18(num_classes=10)
    network.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    kept = filled(network)
    assert architectures.recognise(shapes_of(kept.state_dict())) == ["cifar/resnet18", "cifar/resnet18_pooled"]
    torch.testing.assert_close(architectures.build("cifar/resnet18_pooled", kept.state_dict())(IMAGES), kept(IMAGES))
    network.maxpool = nn.Identity()
    torch.testing.assert_close(architectures.build("cifar/resnet18", network.state_dict())(IMAGES), network(IMAGES))


def test_a_near_miss_is_named_with_the_first_difference() -> None:
    changed = prefixed(resnet8() | {"layer3.0.conv2.weight": torch.ones(64, 64, 5, 5)}, "net.")
    assert architectures.recognise(shapes_of(changed)) == []
    name, difference = architectures.nearest(shapes_of(changed)) or ("", "")
    assert name == "cifar/resnet8"
    assert difference == "'net.layer3.0.conv2.weight' has the shape [64, 64, 5, 5] instead of [64, 64, 3, 3]"
    missing = resnet8()
    del missing["layer2.0.bn1.bias"]
    assert architectures.nearest(shapes_of(missing)) == ("cifar/resnet8", "it has no tensor 'layer2.0.bn1.bias'")
    assert architectures.nearest(shapes_of(odd())) is None
    assert architectures.nearest({}) is None


def test_the_network_of_the_tutorial_is_recognised() -> None:
    tutorial = {"conv1": (6, 3, 5, 5), "conv2": (16, 6, 5, 5), "fc1": (120, 400), "fc2": (84, 120), "fc3": (10, 84)}
    shapes = {f"{name}.weight": shape for name, shape in tutorial.items()}
    shapes |= {f"{name}.bias": shape[:1] for name, shape in tutorial.items()}
    assert architectures.recognise(shapes) == ["cifar/lenet"]


def test_wide_networks_come_in_two_layouts() -> None:
    for build in NETWORKS["cifar/wrn16_2"]:
        network = filled(build(10))
        assert architectures.recognise(shapes_of(network.state_dict())) == ["cifar/wrn16_2"]
        rebuilt = architectures.build("cifar/wrn16_2", network.state_dict())
        assert torch.equal(rebuilt(IMAGES), network(IMAGES))


def test_an_unused_copy_of_a_stage_is_beside_the_network() -> None:
    # As in the networks of TRADES.
    network = NETWORKS["cifar/wrn16_2"][0](10)
    copy: dict[str, Tensor] = prefixed(network.get_submodule("block1").state_dict(), "sub_block1.")
    assert architectures.recognise(shapes_of(network.state_dict() | copy)) == ["cifar/wrn16_2"]
