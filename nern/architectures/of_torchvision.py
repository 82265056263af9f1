"""The networks of torchvision: classifiers, segmentation, detection and video."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from nern.architectures.table import Kind
from nern.architectures.variant import Variant

# The shapes of a vision transformer depend on the image size. torchvision has weights for 224 pixels and for these sizes.
PRETRAINED_SIZES = {"vit_b_16": 384, "vit_l_16": 512, "vit_h_14": 518}

# The frames and the image size of the videos that the published weights of each network take.
VIDEOS = {
    "mc3_18": (16, 112),
    "r2plus1d_18": (16, 112),
    "r3d_18": (16, 112),
    "mvit_v1_b": (16, 224),
    "mvit_v2_s": (16, 224),
    "s3d": (128, 224),
    "swin3d_b": (32, 224),
    "swin3d_s": (32, 224),
    "swin3d_t": (32, 224),
}

# The image size of detectors, where the size of their images is fixed; others take images of any size. Boxes of larger images
# cost more, and the layers are the same.
DETECTORS = {"ssd300_vgg16": 300, "ssdlite320_mobilenet_v3_large": 320}
DETECTION_SIZE = 448

# Detectors that differ only in the size to which they bring images.
SAME_NETWORK = {"torchvision/fasterrcnn_mobilenet_v3_large_320_fpn": "torchvision/fasterrcnn_mobilenet_v3_large_fpn"}

# The regions of a detector's second stage: squares at these places of an image, as fractions of its size.
REGIONS = [(x, y, x + 0.5, y + 0.5) for y in (0.0, 0.25, 0.5) for x in (0.0, 0.25, 0.5)]


def names() -> list[str]:
    """The names of all networks that have tensors of their own.

    Quantisable networks have the names, shapes and functions of other networks, as long as they are not quantised.
    """
    from torchvision import models

    modules = (models, models.segmentation, models.detection, models.video)
    listed = (f"torchvision/{name}" for module in modules for name in models.list_models(module=module))
    return [name for name in listed if name not in SAME_NETWORK]


def aliases() -> dict[str, str]:
    """Other names of networks: those of quantisable networks stand for what these are before they are quantised."""
    from torchvision import models

    quantisable = models.list_models(module=models.quantization)
    of_quantisable = {f"torchvision/{name}": f"torchvision/{name.removeprefix('quantized_')}" for name in quantisable}
    return of_quantisable | SAME_NETWORK


def variants(model: str) -> list[Variant]:
    """The variants of a network. `model` is one of `names`, without `torchvision/`."""
    from torchvision import models

    if model in models.list_models(module=models.segmentation):
        return _segmentation(model)
    if model in models.list_models(module=models.detection):
        return [_detector(model)]
    if model in models.list_models(module=models.video):
        frames, size = VIDEOS[model]
        return [replace(_network(model, size), classes=400, frames=frames)]
    if model in ("googlenet", "inception_v3"):
        # torchvision's pretrained networks are built so. They take images with ImageNet's mean and standard deviation.
        options = {"init_weights": False, "transform_input": True}
        size = 299 if model == "inception_v3" else 224
        return [_network(model, size, aux_logits=aux, **options) for aux in (True, False)]
    built = [_network(model)]
    if model.startswith("densenet"):
        built.append(_with_old_names(built[0]))
    elif model in PRETRAINED_SIZES:
        size = PRETRAINED_SIZES[model]
        built.append(_network(model, size, image_size=size))
    return built


def _network(model: str, image_size: int = 224, /, **options: Any) -> Variant:
    from torchvision import models  # slow to import, and most processes do not need it

    def build(classes: int) -> nn.Module:
        network: nn.Module = models.get_model(model, weights=None, num_classes=classes, **options)
        return network

    return Variant(build, classes=1000, image_size=image_size)


def _with_old_names(variant: Variant) -> Variant:
    """A DenseNet whose layers have submodules `norm.1` and so on, as torchvision's published files do, in place of `norm1`."""

    def build(classes: int) -> nn.Module:
        network = variant.build(classes)
        layers = [module for path, module in network.named_modules() if path.rpartition(".")[2].startswith("denselayer")]
        for layer in layers:
            for kind in ("norm", "conv"):
                pair = nn.ModuleDict({number: getattr(layer, kind + number) for number in "12"})
                for number, module in pair.items():
                    delattr(layer, kind + number)
                    # `forward` reads this attribute. It must not be a submodule, which would be in the state_dict.
                    object.__setattr__(layer, kind + number, module)
                layer.add_module(kind, pair)
        return network

    return replace(variant, build=build)


def _segmentation(model: str) -> list[Variant]:
    """Networks whose outputs are the logits of each pixel, with and without a second head."""
    auxiliary = (False,) if model.startswith("lraspp") else (True, False)
    return [_segmenter(model, aux) for aux in auxiliary]


def _segmenter(model: str, auxiliary: bool) -> Variant:
    options: dict[str, Any] = {"weights_backbone": None}
    if auxiliary or not model.startswith("lraspp"):
        options["aux_loss"] = auxiliary
    outputs: dict[str, Kind] = {"out": "dense classes"}
    if auxiliary:
        outputs["aux"] = "dense classes"
    return replace(_network(model, 520, **options), classes=21, outputs=outputs)


def _detector(model: str) -> Variant:
    """A detector as a function from images of one size to what its heads say of every anchor and of fixed regions.

    Boxes are chosen from these by sorting and suppression, which have no useful gradient.
    """
    forward, outputs = _detection(model)
    size = DETECTORS.get(model, DETECTION_SIZE)
    network = _network(model, size, weights_backbone=None)

    def build(classes: int) -> nn.Module:
        module = network.build(classes)
        object.__setattr__(module, "forward", MethodType(forward, module))
        return module

    return replace(network, build=build, classes=91, outputs=outputs)


def _detection(model: str) -> tuple[Callable[[Any, Tensor], dict[str, Tensor]], Mapping[str, Kind]]:
    """How a detector is computed, and the names of its outputs."""
    if "rcnn" in model:
        names = ["objectness", "anchor_deltas", "class_logits", "box_deltas"]
        names += ["mask_logits"] if model.startswith("mask") else []
        names += ["keypoint_logits"] if model.startswith("keypoint") else []
        return _two_stages, dict.fromkeys(names, "map")
    names = ["bbox_regression", "cls_logits"] if model.startswith("ssd") else ["cls_logits", "bbox_regression"]
    names += ["bbox_ctrness"] if model.startswith("fcos") else []

    def one_stage(network: Any, x_BCHW: Tensor) -> dict[str, Tensor]:
        features = network.backbone(x_BCHW)
        maps = network.head([features] if isinstance(features, Tensor) else list(features.values()))
        return {name: maps[name] for name in names}

    return one_stage, dict.fromkeys(names, "map")


def _two_stages(network: Any, x_BCHW: Tensor) -> dict[str, Tensor]:
    """The outputs of a Faster R-CNN and its relatives: (B, anchors), (B, anchors, 4), then (B, regions, …).

    The outputs for regions are class logits, box deltas and, of a detector that has them, masks or keypoints.
    """
    features = network.backbone(x_BCHW)
    features = {"0": features} if isinstance(features, Tensor) else features
    objectness, deltas = network.rpn.head(list(features.values()))
    batch, _, height, width = x_BCHW.shape
    scale = torch.tensor([width, height, width, height], dtype=x_BCHW.dtype, device=x_BCHW.device)
    regions = [torch.tensor(REGIONS, dtype=x_BCHW.dtype, device=x_BCHW.device) * scale] * batch
    heads = network.roi_heads
    sizes = [(height, width)] * batch
    logits, box_deltas = heads.box_predictor(heads.box_head(heads.box_roi_pool(features, regions, sizes)))
    of_regions = {"class_logits": logits, "box_deltas": box_deltas}
    if heads.has_mask():
        masks = heads.mask_roi_pool(features, regions, sizes)
        of_regions["mask_logits"] = heads.mask_predictor(heads.mask_head(masks))
    if heads.has_keypoint():
        keypoints = heads.keypoint_roi_pool(features, regions, sizes)
        of_regions["keypoint_logits"] = heads.keypoint_predictor(heads.keypoint_head(keypoints))
    return {
        "objectness": torch.cat([one.flatten(1) for one in objectness], 1),
        "anchor_deltas": torch.cat([_of_anchors(one, 4) for one in deltas], 1),
        **{name: one.unflatten(0, (batch, len(REGIONS))) for name, one in of_regions.items()},
    }


def _of_anchors(map_BCHW: Tensor, numbers: int) -> Tensor:
    """The numbers of each anchor: (B, anchors at a place * numbers, H, W) to (B, anchors, numbers)."""
    of_anchors: Tensor = map_BCHW.unflatten(1, (-1, numbers))
    return of_anchors.movedim(2, -1).flatten(1, 3)
