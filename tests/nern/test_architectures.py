import json
import re
import subprocess
import sys
from math import prod
from pathlib import Path
from zlib import crc32

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.func import functional_call
from torchvision import models

from nern import architectures
from nern.architectures import networks, reference, shapes_of, tabulate
from nern.architectures.cifar import ResNet, Shortcut
from nern.architectures.skeleton import skeleton
from nern.architectures.table import read
from nern.errors import NotRepresentable, UnknownArchitecture
from nern.layers import find_layers
from tests.support.networks import odd, resnet8


def sampled() -> list[str]:
    """Architectures whose networks are compared with the table: the small ones and, of the others, one in 60 or so.

    `python -m nern.architectures.tabulate --check` compares all.
    """
    sizes = {name: sum(map(prod, entries[-1].shapes.values())) for name, entries in read().entries.items()}
    small = [name for name, size in sizes.items() if size < 1_500_000]
    others = sorted(
        (name for name in sizes if name not in small and sizes[name] < 100_000_000), key=lambda n: crc32(n.encode())
    )
    return [*small, *others[:20]]


def test_every_network_of_torchvision_is_known() -> None:
    table = read()
    for module in (models, models.segmentation, models.detection, models.video, models.quantization):
        assert {
            f"torchvision/{name}" for name in models.list_models(module=module)
        } <= table.entries.keys() | table.aliases.keys()


@pytest.mark.parametrize("name", sampled())
def test_a_network_is_what_the_table_says_and_is_recognised(name: str) -> None:
    table = read()
    for entry, variant in zip(table.entries[name], networks.variants(name), strict=True):
        facts = tabulate.facts_of(variant)
        assert entry.shapes == {tensor: tuple(shape) for tensor, shape in facts.shapes.items()}
        assert entry.groups == facts.groups
        assert (entry.classes, entry.image_size) == (variant.classes, variant.image_size)
        assert (entry.ends.outputs, entry.ends.frames) == (variant.outputs, variant.frames)
        # With another number of classes.
        others = {f"net.{tensor}": shape for tensor, shape in facts.others.items()}
        match = architectures.match(name, others)
        assert (match.variant, match.classes) == (entry.number, variant.classes + 1)
        assert match.groups == {f"net.{tensor}": groups for tensor, groups in facts.groups.items()}
        assert match.view.bare == {tensor: f"net.{tensor}" for tensor in facts.others}
        recognised = architectures.recognise(others)
        assert name in recognised or set(recognised) & set(match.alternatives)


def test_the_table_has_every_architecture_of_its_libraries() -> None:
    table = read()
    assert set(networks.names()) == {name for name in table.entries if not name.startswith("timm/")}
    known = {name.removeprefix("timm/") for name in table.entries.keys() | table.aliases.keys() if name.startswith("timm/")}
    # Five networks do not take square images.
    assert known == set(timm.list_models()) - {name for name in timm.list_models() if name.endswith("_sapiens2")}


def test_the_table_is_small() -> None:
    assert tabulate.PATH.stat().st_size < 200_000
    assert tabulate.MODULES.stat().st_size < 2_500_000


def test_every_entry_of_the_table_can_be_read() -> None:
    for name, entries in read().entries.items():
        for entry in entries:
            assert entry.shapes.keys() >= {*entry.ends.stems, *entry.ends.classifiers, *entry.groups}
            assert entry.ends.outputs
            assert (entry.architecture, entry.image_size >= 32) == (name, True)


def test_a_table_of_other_networks_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tabulate, "names", lambda: ["cifar/lenet"])
    monkeypatch.setattr(tabulate, "installed", lambda: timm)
    monkeypatch.setattr(timm, "list_models", lambda: ["test_resnet", "test_vit"])
    monkeypatch.setattr(sys, "argv", ["tabulate", "--check"])
    with pytest.raises(SystemExit, match=r"table\.json is not up to date"):
        tabulate.main()
    table = json.loads(tabulate.tabulate()[0])
    assert list(table["architectures"]) == ["cifar/lenet", "timm/test_vit", "timm/test_resnet"]


def test_the_list_of_architectures_is_up_to_date() -> None:
    text = (Path(__file__).parents[2] / "docs/architectures.md").read_text()
    assert reference.updated(text) == text, "run python -m nern.architectures.reference docs/architectures.md"
    assert "`cifar/wrn28_10`" in text


def test_recognising_and_matching_need_no_torch() -> None:
    script = """
import json, sys
from nern import architectures
shapes = json.load(sys.stdin)
assert architectures.recognise(shapes) == ["cifar/resnet8"]
assert architectures.match("cifar/resnet8", shapes).classes == 10
assert architectures.groups("cifar/resnet8", shapes)["layer1.0.conv1.weight"] == 1
assert architectures.input_shape("cifar/resnet8", shapes) == (3, 32, 32)
print([name for name in ("torch", "torchvision", "numpy") if name in sys.modules])
"""
    shapes = json.dumps({name: list(shape) for name, shape in shapes_of(resnet8()).items()})
    command = [sys.executable, "-P", "-c", script]
    assert subprocess.run(command, input=shapes, capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_network_whose_heads_disagree_on_the_classes_is_none() -> None:
    other = {"linear.weight": torch.empty(7, 64)}
    assert architectures.recognise(shapes_of(resnet8() | other)) == []
    with pytest.raises(UnknownArchitecture, match=r"'linear\.bias' has the shape \[10\] instead of \[7\]"):
        architectures.match("cifar/resnet8", shapes_of(resnet8() | other))


def test_a_tensor_too_many_or_too_few_is_named() -> None:
    shapes = shapes_of(resnet8())
    with pytest.raises(UnknownArchitecture, match=r"unexpected tensor 'layer1\.extra'"):
        architectures.match("cifar/resnet8", shapes | {"layer1.extra": (1,)})
    del shapes["conv1.weight"]
    with pytest.raises(UnknownArchitecture, match=r"no tensor 'conv1\.weight'"):
        architectures.match("cifar/resnet8", shapes)


def test_a_network_without_classes_or_channels_is_none() -> None:
    unclassified = {"linear.weight": torch.empty(0, 64), "linear.bias": torch.empty(0)}
    assert architectures.recognise(shapes_of(resnet8() | unclassified)) == []
    assert architectures.recognise(shapes_of(resnet8() | {"conv1.weight": torch.empty(16, 0, 3, 3)})) == []


@pytest.mark.parametrize("shortcut", ["A", "B"])
def test_a_cifar_network_comes_back_with_its_answers(shortcut: Shortcut) -> None:
    torch.manual_seed(0)
    original = ResNet(8, shortcut=shortcut, channels=1, classes=4).eval()
    rebuilt = architectures.build("cifar/resnet8", original.state_dict())
    inputs = torch.randn(2, 1, 8, 8)
    assert torch.equal(original(inputs), rebuilt(inputs))
    assert not rebuilt.training


def test_option_a_takes_every_second_pixel_and_pads_channels_on_both_sides() -> None:
    network = ResNet(8)
    shortcut = network.get_submodule("layer2.0.shortcut")
    inputs = torch.randn(1, 16, 4, 4)
    out = shortcut(inputs)
    assert torch.equal(out[:, 8:24], inputs[:, :, ::2, ::2])
    assert not out[:, :8].any()
    assert not out[:, 24:].any()


def test_torchvision_networks_take_their_ends_from_the_shapes() -> None:
    torch.manual_seed(0)
    original = torchvision.models.resnet18(num_classes=5)
    original.conv1 = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    rebuilt = architectures.build("torchvision/resnet18", original.eval().state_dict())
    inputs = torch.randn(1, 1, 64, 64)
    assert torch.equal(original(inputs), rebuilt(inputs))
    assert architectures.input_shape("torchvision/resnet18", shapes_of(original.state_dict())) == (1, 224, 224)


def test_half_precision_and_missing_counters_are_no_obstacle() -> None:
    state_dict = {name: tensor.half() for name, tensor in resnet8().items() if "num_batches" not in name}
    assert architectures.recognise(shapes_of(state_dict)) == ["cifar/resnet8"]
    assert architectures.build("cifar/resnet8", state_dict)(torch.randn(1, 3, 8, 8)).dtype == torch.float32


def test_a_densenet_as_torchvision_offers_it_is_recognised_by_its_old_names() -> None:
    torch.manual_seed(0)
    original = torchvision.models.densenet121(num_classes=5).eval()
    old = {re.sub(r"(denselayer\d+\.(?:norm|conv))", r"\1.", name): tensor for name, tensor in original.state_dict().items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    assert architectures.recognise(shapes_of(old)) == ["torchvision/densenet121"]
    rebuilt = architectures.build("torchvision/densenet121", old)
    inputs = torch.randn(1, 3, 64, 64)
    assert torch.equal(original(inputs), rebuilt(inputs))
    changed = functional_call(
        rebuilt, {"features.denseblock1.denselayer1.conv.1.weight": torch.zeros(128, 64, 1, 1)}, (inputs,)
    )
    assert not torch.equal(changed, original(inputs))


def test_transformers_for_large_images_are_recognised() -> None:
    state_dict = skeleton(lambda: torchvision.models.vit_b_16(image_size=384)).state_dict()
    assert architectures.recognise(shapes_of(state_dict)) == ["torchvision/vit_b_16"]
    assert architectures.input_shape("torchvision/vit_b_16", shapes_of(state_dict)) == (3, 384, 384)


def test_googlenet_takes_the_images_that_the_pretrained_one_takes() -> None:
    torch.manual_seed(0)
    original = torchvision.models.googlenet(init_weights=False, transform_input=True).eval()
    inputs = torch.randn(1, 3, 64, 64)
    rebuilt = architectures.build("torchvision/googlenet", original.state_dict())
    assert torch.equal(original(inputs), rebuilt(inputs))
    grey = torchvision.models.googlenet(init_weights=False)
    grey.conv1.conv = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    rebuilt = architectures.build("torchvision/googlenet", grey.eval().state_dict())
    assert torch.equal(grey(inputs[:, :1]), rebuilt(inputs[:, :1]))


def test_groups_are_those_of_the_architecture() -> None:
    state_dict = torchvision.models.mobilenet_v2().state_dict()
    found = architectures.groups("torchvision/mobilenet_v2", shapes_of(state_dict))
    assert found["features.1.conv.0.0.weight"] == 32
    assert found["features.0.0.weight"] == 1


def test_other_networks_are_not_recognised() -> None:
    assert architectures.recognise(shapes_of(odd())) == []


def test_a_checkpoint_of_another_network_is_refused_with_the_first_difference() -> None:
    with pytest.raises(UnknownArchitecture, match=r"layer1\.1\.conv1\.weight"):
        architectures.build("cifar/resnet14", resnet8())
    with pytest.raises(UnknownArchitecture, match="no architecture"):
        architectures.build("cifar/resnet9", resnet8())


def test_the_papers_layers() -> None:
    resnet18 = skeleton(torchvision.models.resnet18).state_dict()
    shapes = {layer.name: layer.shape for layer in find_layers(resnet18)}
    chosen = architectures.paper_layers("torchvision/resnet18", shapes)
    assert len(chosen) == 16
    assert sum(torch.Size(shapes[name]).numel() for name in chosen) == 10_985_472
    with pytest.raises(NotRepresentable):
        architectures.paper_layers(None, shapes)


@pytest.mark.parametrize("prefix", ["module.", "backbone.", "model.encoder._orig_mod."])
def test_networks_are_recognised_and_built_under_a_prefix(prefix: str) -> None:
    state_dict = {prefix + name: tensor for name, tensor in resnet8().items()}
    assert architectures.recognise(shapes_of(state_dict)) == ["cifar/resnet8"]
    match = architectures.match("cifar/resnet8", shapes_of(state_dict))
    assert match.view.prefix == prefix
    assert match.groups[f"{prefix}layer1.0.conv1.weight"] == 1
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(
        architectures.build("cifar/resnet8", state_dict)(images), architectures.build("cifar/resnet8", resnet8())(images)
    )


@pytest.mark.parametrize("foreign", ["n_averaged", "criterion.weight", "train_acc.confmat"])
def test_a_foreign_tensor_beside_a_network_does_not_hide_it(foreign: str) -> None:
    state_dict = {foreign: torch.ones(3, 3), **resnet8()}
    assert architectures.recognise(shapes_of(state_dict)) == ["cifar/resnet8"]
    assert architectures.build("cifar/resnet8", state_dict)(torch.randn(1, 3, 8, 8)).shape == (1, 10)
