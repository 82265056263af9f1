"""Networks of timm, and torchvision's networks that are no classifiers of images."""

import sys
from functools import partial
from typing import Any

import pytest
import timm
import torch
from torch import nn
from torch.func import functional_call
from torchvision import models

from nern import architectures
from nern.architectures import networks, shapes_of
from nern.architectures.skeleton import skeleton
from nern.errors import UnknownArchitecture
from tests.support.networks import filled


def of_timm(model: str, **options: Any) -> nn.Module:
    network: nn.Module = filled(timm.create_model(model, **options))
    return network


def test_a_network_of_timm_comes_back_with_its_answers() -> None:
    network = of_timm("test_vit", num_classes=5, in_chans=1)
    state_dict = {f"model.{name}": tensor for name, tensor in network.state_dict().items()}
    assert architectures.recognise(shapes_of(state_dict)) == ["timm/test_vit"]
    match = architectures.match("timm/test_vit", shapes_of(state_dict))
    assert (match.classes, match.input_shape, match.outputs) == (5, (1, 160, 160), {"logits": "logits"})
    images = torch.randn(1, 1, 160, 160)
    assert torch.equal(architectures.build("timm/test_vit", state_dict)(images), network(images))


def test_a_network_of_timm_may_have_another_head_or_none() -> None:
    network = of_timm("test_resnet")
    images = torch.randn(1, 3, 64, 64)
    features = of_timm("test_resnet", num_classes=0)
    assert architectures.recognise(shapes_of(features.state_dict())) == ["timm/test_resnet"]
    assert torch.equal(architectures.build("timm/test_resnet", features.state_dict())(images), features(images))
    inputs = network.get_parameter("fc.weight").shape[1]
    network.fc = nn.Sequential(nn.Dropout(), nn.Linear(inputs, 3)).eval()
    assert torch.equal(architectures.build("timm/test_resnet", network.state_dict())(images), network(images))


def test_recognition_needs_no_timm_and_building_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    state_dict = of_timm("test_resnet").state_dict()
    monkeypatch.setitem(sys.modules, "timm", None)
    assert architectures.recognise(shapes_of(state_dict)) == ["timm/test_resnet"]
    with pytest.raises(UnknownArchitecture, match=r"install 'nern\[timm\]'"):
        architectures.build("timm/test_resnet", state_dict)


def test_a_library_of_another_version_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    state_dict = of_timm("test_resnet").state_dict()
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda *_, **__: create("test_vit"))
    with pytest.raises(UnknownArchitecture, match="the installed timm builds another timm/test_resnet than this release knows"):
        architectures.build("timm/test_resnet", state_dict)

    def unknown(*_: object, **__: object) -> nn.Module:
        raise RuntimeError("Unknown model (test_resnet)")

    monkeypatch.setattr(timm, "create_model", unknown)
    with pytest.raises(UnknownArchitecture, match=r"can't build timm/test_resnet: Unknown model"):
        architectures.build("timm/test_resnet", state_dict)


def test_networks_with_the_same_function_have_one_name() -> None:
    shapes = shapes_of(skeleton(models.resnet18).state_dict())
    assert architectures.recognise(shapes) == ["torchvision/resnet18"]
    assert architectures.match("timm/resnet18", shapes).architecture == "torchvision/resnet18"
    assert architectures.match("torchvision/quantized_resnet18", shapes).architecture == "torchvision/resnet18"
    assert architectures.match("torchvision/resnet18", shapes).alternatives == ("timm/resnetblur18",)


def test_networks_that_differ_in_what_shapes_do_not_tell_are_candidates() -> None:
    shapes = shapes_of(skeleton(lambda: timm.create_model("efficientnet_b0")).state_dict())
    assert architectures.recognise(shapes) == ["timm/efficientnet_b0", "timm/tf_efficientnet_b0"]
    # This one has no published weights.
    assert "timm/efficientnet_blur_b0" in architectures.match("timm/efficientnet_b0", shapes).alternatives


@pytest.mark.parametrize("auxiliary", [True, False])
def test_a_segmenter_gives_the_logits_of_each_pixel(auxiliary: bool) -> None:
    network = models.segmentation.deeplabv3_mobilenet_v3_large(
        weights_backbone=None, num_classes=3, aux_loss=auxiliary or None
    ).eval()
    state_dict = network.state_dict()
    assert architectures.recognise(shapes_of(state_dict)) == ["torchvision/deeplabv3_mobilenet_v3_large"]
    match = architectures.match("torchvision/deeplabv3_mobilenet_v3_large", shapes_of(state_dict))
    names = ["out", "aux"] if auxiliary else ["out"]
    assert (match.classes, match.outputs) == (3, dict.fromkeys(names, "dense classes"))
    images = torch.randn(2, 3, 64, 64)
    built = architectures.build("torchvision/deeplabv3_mobilenet_v3_large", state_dict)
    made, expected = functional_call(built, {}, (images,)), network(images)
    assert list(made) == names
    for name, output in made.items():
        assert output.shape == (2, 3, 64, 64)
        assert torch.equal(output, expected[name])


def test_a_network_for_videos_takes_frames() -> None:
    network = filled(models.video.r3d_18(num_classes=4))
    assert architectures.recognise(shapes_of(network.state_dict())) == ["torchvision/r3d_18"]
    match = architectures.match("torchvision/r3d_18", shapes_of(network.state_dict()))
    assert match.input_shape == (3, 16, 112, 112)
    videos = torch.randn(1, 3, 4, 32, 32)
    assert torch.equal(architectures.build("torchvision/r3d_18", network.state_dict())(videos), network(videos))


# Outputs for two images with five classes. Detectors have anchors of 448 pixels, or of 300 and 320 where these are fixed.
ONE_STAGE = [
    ("ssdlite320_mobilenet_v3_large", {"bbox_regression": (2, 3234, 4), "cls_logits": (2, 3234, 5)}),
    ("ssd300_vgg16", {"bbox_regression": (2, 8732, 4), "cls_logits": (2, 8732, 5)}),
    ("retinanet_resnet50_fpn", {"cls_logits": (2, 37629, 5), "bbox_regression": (2, 37629, 4)}),
    (
        "fcos_resnet50_fpn",
        {"cls_logits": (2, 4181, 5), "bbox_regression": (2, 4181, 4), "bbox_ctrness": (2, 4181, 1)},
    ),
]


@pytest.mark.parametrize(("name", "outputs"), ONE_STAGE)
def test_a_detector_gives_what_its_heads_say_of_every_anchor(name: str, outputs: dict[str, tuple[int, ...]]) -> None:
    variant = networks.variants(f"torchvision/{name}")[0]
    network = skeleton(partial(variant.build, 5)).eval()
    shapes = shapes_of(network.state_dict())
    assert architectures.recognise(shapes) == [f"torchvision/{name}"]
    match = architectures.match(f"torchvision/{name}", shapes)
    assert (match.classes, match.outputs) == (5, dict.fromkeys(outputs, "map"))
    made = network.to("meta")(torch.empty(2, *match.input_shape, device="meta"))
    assert {name: tuple(output.shape) for name, output in made.items()} == outputs


def test_every_weight_of_a_detector_has_a_part_in_its_outputs() -> None:
    name = "torchvision/fasterrcnn_mobilenet_v3_large_fpn"
    network = filled(models.detection.fasterrcnn_mobilenet_v3_large_320_fpn(weights_backbone=None, num_classes=5))
    state_dict = network.state_dict()
    assert architectures.recognise(shapes_of(state_dict)) == [name]
    match = architectures.match("torchvision/fasterrcnn_mobilenet_v3_large_320_fpn", shapes_of(state_dict))
    built = architectures.build(match.architecture, state_dict).requires_grad_(True)
    made = functional_call(built, {}, (torch.randn(2, 3, 64, 64),))
    shapes = {name: tuple(output.shape) for name, output in made.items()}
    assert list(match.outputs) == list(shapes)
    anchors = made["objectness"].shape[1]
    assert shapes == {
        "objectness": (2, anchors),
        "anchor_deltas": (2, anchors, 4),
        "class_logits": (2, 9, 5),
        "box_deltas": (2, 9, 20),
    }
    sum(output.square().mean() for output in made.values()).backward()
    assert [path for path, parameter in built.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize(
    ("name", "last", "shape"),
    [
        ("maskrcnn_resnet50_fpn", "mask_logits", (1, 9, 91, 28, 28)),
        ("keypointrcnn_resnet50_fpn", "keypoint_logits", (1, 9, 17, 56, 56)),
    ],
)
def test_a_detector_of_masks_or_keypoints_gives_these_for_regions(name: str, last: str, shape: tuple[int, ...]) -> None:
    variant = networks.variants(f"torchvision/{name}")[0]
    with torch.no_grad():
        made = variant.build(91).eval()(torch.randn(1, 3, 64, 64))
    assert list(made) == list(variant.outputs)
    assert made[last].shape == shape
