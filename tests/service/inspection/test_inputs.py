"""The answer that the sender of each kind of file wants."""

import re
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import pytest
import torch

from nern import tensorfile
from nern.layers import StateDict
from service.inspection import child
from service.inspection.companions import lone_part
from service.inspection.inspect import CheckpointFacts
from service.inspection.refusal import Refusal
from service.store.tables import Checkpoint
from service.uploads.intake import Received, describe
from tests.support.inputs import INPUTS, network
from tests.support.networks import resnet8

NAMES = list(network())
RESNET8 = list(resnet8())
OWN = ["0.weight", "3.weight"]


@dataclass(frozen=True)
class Accepted:
    """An accepted file.

    layers: the convolutions; the names, or their number.
    names: the names of all tensors, aliases included.
    replaced: the weights of layers that are stored in a form, each with the tensors that the weight takes the place of.
    notes: what each note must contain, in order.
    value: the value of every weight of the convolutions, where the file was written so.
    """

    names: list[str]
    layers: list[str] | int = field(default_factory=lambda: OWN)
    key: str = "."
    keys: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    architecture: str | None = None
    aliases: dict[str, str] = field(default_factory=dict)
    value: float | None = None
    replaced: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Refused:
    """A refused file: the slug of the problem, and what the detail must contain."""

    slug: str
    detail: str


def under(prefix: str, names: list[str] = NAMES) -> list[str]:
    return [prefix + name for name in names]


def beside(name: str) -> Accepted:
    """The network, and one more tensor, which is kept."""
    return Accepted([*NAMES, name])


CHECKPOINT = Accepted(NAMES, key="state_dict")
INNER = [re.sub(r"^layer1\.", "layer1.module.", name) for name in RESNET8]
PARAMETERS = [str(number) for number in range(7)]
NUMBERED = "the tensors have no names in the file; they are named by their numbers"
SPARSE = "is kept as a dense one"


def averaged(key: str, raw: str, *notes: str, names: list[str] = NAMES, prefix: str = "") -> Accepted:
    """One of two copies of the network: the averaged one, whose weights are 2."""
    choice = f"the averaged weights at '{key}' were taken; `?key=` takes others: '{raw}'"
    return Accepted(names, under(prefix, OWN), key, (raw,), (choice, *notes), value=2.0)


def in_form(stored: str, weights: list[str], replaced: tuple[str, ...], kept: tuple[str, ...] = ()) -> Accepted:
    """The network with weights that are stored in a form; the ends of the tensors that replace the weight, and of others."""
    parts = [f"{weight}_{end}" for weight in weights for end in (*replaced, *kept)]
    others = f" and {len(weights) - 1} more are" if len(weights) > 1 else " is"
    return Accepted(
        [name for name in NAMES if name not in weights] + parts,
        notes=(f"'{weights[0]}'{others} stored {stored}: what it computes is represented, and comes back in that form",),
        replaced={weight: [f"{weight}_{end}" for end in replaced] for weight in weights},
    )


def one_of_two(key: str, other: str) -> Accepted:
    choice = f"the tensors at '{key}' were taken; `?key=` takes others: '{other}'"
    return Accepted(NAMES, key=key, keys=(other,), notes=(choice,), value=2.0)


def resnet(prefix: str = "", *more: str, key: str = ".", notes: tuple[str, ...] = ()) -> Accepted:
    return Accepted([*under(prefix, RESNET8), *more], 7, key, notes=notes, architecture="cifar/resnet8")


ANSWERS: dict[str, Accepted | Refused] = {
    "basicsr-params_ema-small.pth": averaged("params_ema", "params"),
    "checkpoint-model-nested.pth": Accepted(NAMES, key="checkpoint.model.state_dict"),
    "cifar-resnet8-downsample-fc.pth": Accepted(
        [name.replace("shortcut", "downsample").replace("linear", "fc") for name in resnet8(shortcut="B")],
        9,
        architecture="cifar/resnet8",
    ),
    "complex-buffer.pth": beside("freqs_cis"),
    "conv1d-long-kernel.pth": Accepted(["stft.weight", "conv.weight", "conv.bias"], ["stft.weight", "conv.weight"]),
    "datetime-beside.pth": CHECKPOINT,
    "enum-beside.pth": CHECKPOINT,
    "extra_state-bytesio.pth": Accepted(NAMES, notes=("no tensors: 'te._extra_state' (_io.BytesIO)",)),
    "f8.safetensors": beside("buf"),
    "gzipped.pth.gz": Refused("not-a-checkpoint", "compressed with gzip; unpack it"),
    "html-page.pth": Refused("not-a-checkpoint", "a web page"),
    "inner-module.pth": Accepted(INNER, 7, architecture="cifar/resnet8"),
    "int-keys.pth": Accepted(PARAMETERS, ["0", "3"], notes=(NUMBERED,)),
    "keras-like-names.pth": Accepted(
        ["conv2d/kernel:0", "conv2d/bias:0"], ["conv2d/kernel:0"], notes=("channels in the last dimensions",)
    ),
    "lightning-attributedict.ckpt": Accepted(under("model."), under("model.", OWN), "state_dict"),
    "lightning-with-metric-state.ckpt": resnet("net.", "train_acc.confmat", key="state_dict"),
    "list-of-state_dicts.pth": Accepted(NAMES, key="state_dict.0"),
    "list-of-tensors.pth": Accepted(PARAMETERS, ["0", "3"], notes=(NUMBERED,)),
    "litema.ckpt": averaged(
        "state_dict.model_ema",
        "state_dict.model",
        "averaged weights are under names that begin with 'model_ema.', and raw ones under names that begin with 'model.'",
        "the averages have the names of the raw ones here",
        "there is no average of 'model.1.running_mean' and 2 others: taken from the raw weights",
        names=under("model."),
        prefix="model.",
    ),
    "mask-buffer-inf.pth": beside("attn_mask"),
    "method-not-called.pth": Refused("not-a-checkpoint", "the parentheses are missing"),
    "mmengine-ema-small.pth": averaged(
        "state_dict", "ema_state_dict", "'state_dict' holds averaged weights, and 'ema_state_dict' raw ones, as mmengine"
    ),
    "model-00002-of-00002.safetensors": Refused("lone-shard", "one of 2 shards of a checkpoint"),
    "namespace-beside.pth": Accepted(NAMES, key="model"),
    "nested-dict-tensors.pth": Accepted(
        ["conv1.weight", "conv2.weight", "conv2.bias"], ["conv1.weight", "conv2.weight"], notes=("in nested dicts",)
    ),
    "netG_state_dict.pth": one_of_two("netG_state_dict", "netD_state_dict"),
    "no-suffix.pth": Accepted(["conv1", "conv2"], ["conv1", "conv2"]),
    "numpy-scalar-beside.pth": CHECKPOINT,
    "omegaconf-beside.pth": Accepted(under("model."), under("model.", OWN), "state_dict"),
    "only-1x1-named-kernel.pth": Accepted(["conv1.kernel", "conv1.bias"], ["conv1.kernel"]),
    "own-attribute-network.pth": Accepted(under("network."), under("network.", OWN)),
    "params_ema.pth": averaged("params_ema", "params"),
    "posixpath-beside.pth": CHECKPOINT,
    "prefix-backbone.pth": resnet("backbone."),
    "prefix-encoder.pth": resnet("encoder."),
    "protocol4.pth": Accepted(NAMES),
    "protocol5.pth": Accepted(NAMES),
    "pruned-mask.pth": in_form("as a weight and a mask", OWN, ("orig",), ("mask",)),
    "pruned-one-layer.pth": in_form("as a weight and a mask", ["0.weight"], ("orig",), ("mask",)),
    "pure-pickle-numpy.pkl": Accepted(NAMES, key="model"),
    "pure-pickle-tensors.pkl": Accepted(NAMES),
    "qat-observers-inf.pth": Accepted([*NAMES, "0.activation_post_process.min_val", "0.activation_post_process.max_val"]),
    "quantised-dynamic-or-static.pth": Refused("unsupported-tensor", "'conv.weight' is quantised"),
    "rng-states.pth": CHECKPOINT,
    "sparse-buffer.pth": Accepted([*NAMES, "adj"], notes=(f"'adj' {SPARSE}",)),
    "sparse-coo.pth": Accepted(NAMES, notes=(f"'0.weight' {SPARSE}", f"'3.weight' {SPARSE}")),
    "spectral_norm-old.pth": in_form("with spectral norm", OWN, ("orig",), ("u", "v")),
    "student-teacher.pth": Accepted(
        under("module."),
        under("module.", OWN),
        "teacher",
        ("student",),
        ("the averaged weights at 'teacher' were taken; `?key=` takes others: 'student'",),
        value=1.0,
    ),
    "swa-averagedmodel-small.pth": Accepted(
        ["n_averaged", *under("module.")], under("module.", OWN), notes=("averages of 0 states",), value=2.0
    ),
    "tied-save_model.safetensors": Accepted(
        ["dec.weight", "dec.bias", "enc.bias", "enc.weight"], ["dec.weight"], aliases={"enc.weight": "dec.weight"}
    ),
    "torch-averagedmodel.pth": resnet("module.", "n_averaged", notes=("averages of 0 states",)),
    "tuple-checkpoint.pth": Accepted(NAMES, key="0"),
    "two-networks.pth": one_of_two("generator", "discriminator"),
    "u16.safetensors": beside("buf"),
    "weight_norm-old.pth": in_form("with weight norm", OWN, ("g", "v")),
    "whole-module.pt": Accepted(NAMES, notes=("a whole pickled module of the class torch.nn.modules.container.Sequential",)),
    "windowspath-beside.pth": CHECKPOINT,
    "zipped-pth.zip": Refused("not-a-checkpoint", "a zip archive that holds 'model.pth'; unpack it"),
}

# Kinds whose answer is not given yet.
PENDING = {"cifar-resnet8-downsample-fc.pth"}


def answer(name: str, content: bytes, folder: Path) -> tuple[Checkpoint, StateDict]:
    """What an upload of this name and content is answered, and the tensors that are stored. Raises Refusal."""
    if alone := lone_part(name):
        raise Refusal("lone-shard", alone)
    output = BytesIO()
    facts = CheckpointFacts.of(child.inspect_checkpoint(BytesIO(content), output, len(content)))
    (folder / "tensors").write_bytes(output.getvalue())
    row = describe(Received(folder / name, folder, name, len(content), ""), facts)
    return row, tensorfile.load(folder / "tensors")


def test_every_kind_of_file_has_an_answer() -> None:
    assert INPUTS.keys() == ANSWERS.keys()
    assert ANSWERS.keys() > PENDING


@pytest.mark.parametrize("name", [name for name in INPUTS if name not in PENDING])
def test_the_answer_is_the_one_that_the_sender_wants(name: str, tmp_path: Path) -> None:
    wanted, content = ANSWERS[name], INPUTS[name]()
    if isinstance(wanted, Refused):
        with pytest.raises(Refusal, match=re.escape(wanted.detail)) as refused:
            answer(name, content, tmp_path)
        assert refused.value.slug == wanted.slug
        return
    row, tensors = answer(name, content, tmp_path)
    layers = [layer["name"] for layer in row.layers]
    assert wanted.layers in (layers, len(layers))
    assert (row.architecture, row.key, tuple(row.keys), row.aliases) == (
        wanted.architecture, wanted.key, wanted.keys, wanted.aliases,
    )  # fmt: skip
    assert len(row.notes) == len(wanted.notes), row.notes
    for note, expected in zip(row.notes, wanted.notes, strict=True):
        assert expected in note
    assert sorted(tensors) == sorted(wanted.names)
    listed = [*layers, *(kept["name"] for kept in row.kept), *row.aliases]
    assert sorted(part for name in listed for part in wanted.replaced.get(name, [name])) == sorted(wanted.names)
    if wanted.value is not None:
        assert all(torch.equal(tensors[layer], torch.full_like(tensors[layer], wanted.value)) for layer in layers)
