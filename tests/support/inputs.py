"""Files that people send, by the names of the kinds: each function writes a small one of its kind.

The network of most of them is `network()`: two convolutions, a batch norm and a linear layer.
"""

import enum
import gzip
import pathlib
import pickle
import random
import sys
import warnings
import zipfile
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from io import BytesIO
from types import ModuleType
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.optim.swa_utils import AveragedModel

from nern.architectures.cifar import ResNet
from nern.layers import StateDict
from tests.support.networks import resnet8, saved
from tests.support.tensors import quantised


def module() -> nn.Sequential:
    """An untrained network whose tensors are called 0.weight, 1.weight, …, 3.weight, 3.bias, 7.weight and 7.bias."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    )  # fmt: skip


def network(value: float | None = None, prefix: str = "") -> StateDict:
    """The state_dict of `module`, perhaps with a prefix, and with `value` in place of every floating-point number."""
    tensors = module().state_dict()
    if value is not None:
        tensors = {name: torch.full_like(one, value) if one.ndim else one for name, one in tensors.items()}
    return {prefix + name: tensor for name, tensor in tensors.items()}


@contextmanager
def importable(name: str, made: type) -> Iterator[type]:
    """A context in which a class can be imported under a dotted name, as pickling it takes."""
    path, _, made.__qualname__ = name.rpartition(".")
    made.__module__, made.__name__ = path, made.__qualname__
    parents = [path[:dot] for dot in range(len(path)) if path[dot] == "."] + [path]
    before = {parent: sys.modules.get(parent) for parent in parents}
    try:
        sys.modules.update({parent: ModuleType(parent) for parent in parents})
        setattr(sys.modules[path], made.__name__, made)
        yield made
    finally:
        for parent, earlier in before.items():
            if earlier is None:
                del sys.modules[parent]
            else:
                sys.modules[parent] = earlier


def beside(thing: object, prefix: str = "") -> bytes:
    """A training checkpoint: the network under `state_dict`, and something beside it."""
    return saved({"state_dict": network(prefix=prefix), "beside": thing, "epoch": 3})


def of_class(name: str, content: dict[str, object], prefix: str = "") -> bytes:
    """A training checkpoint with a dictionary of a class that this process can't import when it reads the file."""
    with importable(name, type("Made", (dict,), {})) as made:
        return beside(made(content), prefix)


def enum_beside() -> bytes:
    kind = enum.Enum("Kind", {"SMALL": 1})  # type: ignore[misc]
    with importable("myproject.kinds.Kind", kind):
        return beside(kind(1))


class WindowsPath:
    """Is pickled as a path of Windows, which no other system can make."""

    def __reduce__(self) -> Any:
        return pathlib.WindowsPath, ("C:\\", "runs")


def extra_state() -> bytes:
    return saved({**network(), "te._extra_state": BytesIO(b"scales")})


def rng_states() -> bytes:
    states = {"torch": torch.get_rng_state(), "numpy": np.random.get_state(), "python": random.getstate()}
    return saved({"state_dict": network(), "rng": states})


def with_tensor(name: str, tensor: Tensor, *, safe: bool = False) -> bytes:
    """The network with one more tensor."""
    content = {**network(), name: tensor}
    return safetensors.torch.save(content) if safe else saved(content)


def averaged() -> StateDict:
    """The state_dict of torch's AveragedModel of the network, with twos."""
    tensors: StateDict = AveragedModel(module()).state_dict()
    return {name: torch.full_like(one, 2.0) if one.ndim else one for name, one in tensors.items()}


def latent_diffusion() -> bytes:
    """Averages under names without dots, beside the raw weights."""
    parameters = {name: one for name, one in network(2.0).items() if "running" not in name and "batches" not in name}
    copies = {"model_ema." + name.replace(".", ""): one for name, one in parameters.items()}
    counters = {"model_ema.decay": torch.tensor(0.999), "model_ema.num_updates": torch.tensor(7)}
    return saved({"state_dict": {**network(1.0, "model."), **copies, **counters}})


def mmengine() -> bytes:
    raw = {"steps": torch.tensor(10), **network(1.0, "module.")}
    return saved({"meta": {"epoch": 1}, "state_dict": network(2.0), "ema_state_dict": raw})


def inner_parallel() -> bytes:
    net = ResNet(8)
    net.layer1 = nn.DataParallel(net.layer1)  # type: ignore[assignment]
    return saved(net.state_dict())


def with_metric() -> bytes:
    tensors = {f"net.{name}": tensor for name, tensor in resnet8().items()}
    return saved({"state_dict": {**tensors, "train_acc.confmat": torch.zeros(10, 10)}, "epoch": 1})


def downsample_and_fc() -> bytes:
    """A ResNet-8 for CIFAR whose shortcuts are called downsample, and whose head is called fc."""
    tensors = resnet8(shortcut="B")
    return saved({name.replace("shortcut", "downsample").replace("linear", "fc"): one for name, one in tensors.items()})


def long_kernels() -> bytes:
    net = nn.ModuleDict({"stft": nn.Conv1d(1, 8, 80, bias=False), "conv": nn.Conv1d(8, 16, 3)})
    return saved(net.state_dict())


def reparametrised(wrap: Callable[[nn.Module], nn.Module]) -> bytes:
    """The network, of whose convolutions `wrap` computes the weights from others."""
    net = module()
    for place in (0, 3):
        wrap(net[place])
    return saved(net.state_dict())


def old_weight_norm(convolution: nn.Module) -> nn.Module:
    """A convolution with the weight norm of older releases of torch, which the newest one warns about."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.utils.weight_norm(convolution)


def half_of(convolution: nn.Module) -> nn.Module:
    """A convolution of which half of the weights are masked."""
    prune.l1_unstructured(convolution, "weight", 0.5)
    return convolution


def pruned(*places: int) -> bytes:
    net = module()
    for place in places:
        half_of(net[place])
    return saved(net.state_dict())


def tied() -> bytes:
    """What save_model of safetensors writes for two modules of one weight."""
    tensors = {"dec.weight": torch.randn(4, 4, 3, 3), "dec.bias": torch.zeros(4), "enc.bias": torch.zeros(4)}
    return safetensors.torch.save(tensors, metadata={"enc.weight": "dec.weight"})


def shard() -> bytes:
    return safetensors.torch.save({name: tensor for name, tensor in network().items() if not name.startswith("0.")})


def zip_of(name: str, content: bytes) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


def protocol(number: int) -> bytes:
    buffer = BytesIO()
    torch.save(network(), buffer, pickle_protocol=number)
    return buffer.getvalue()


def with_networks(first: str, second: str, prefix: str = "") -> bytes:
    """Two networks of the same shapes."""
    return saved({first: network(2.0, prefix), second: network(1.0, prefix), "epoch": 1})


PAGE = b"<!DOCTYPE html>\n<html><body>404: not found</body></html>"

# For each kind of file: the name that it was sent under, and the function that writes it.
INPUTS: dict[str, Callable[[], bytes]] = {
    "basicsr-params_ema-small.pth": lambda: with_networks("params_ema", "params"),
    "checkpoint-model-nested.pth": lambda: saved({"checkpoint": {"model": {"state_dict": network()}}}),
    "cifar-resnet8-downsample-fc.pth": downsample_and_fc,
    "complex-buffer.pth": lambda: with_tensor("freqs_cis", torch.ones(4, dtype=torch.complex64)),
    "conv1d-long-kernel.pth": long_kernels,
    "datetime-beside.pth": lambda: beside(datetime(2026, 1, 1, tzinfo=UTC)),
    "enum-beside.pth": enum_beside,
    "extra_state-bytesio.pth": extra_state,
    "f8.safetensors": lambda: with_tensor("buf", torch.ones(4).to(torch.float8_e4m3fn), safe=True),
    "gzipped.pth.gz": lambda: gzip.compress(saved(network())),
    "html-page.pth": lambda: PAGE,
    "inner-module.pth": inner_parallel,
    "int-keys.pth": lambda: saved(dict(enumerate(module().parameters()))),
    "keras-like-names.pth": lambda: saved({"conv2d/kernel:0": torch.randn(3, 3, 3, 8), "conv2d/bias:0": torch.zeros(8)}),
    "lightning-attributedict.ckpt": lambda: of_class(
        "pytorch_lightning.utilities.parsing.AttributeDict", {"lr": 0.1}, "model."
    ),
    "lightning-with-metric-state.ckpt": with_metric,
    "list-of-state_dicts.pth": lambda: saved({"state_dict": [network()], "err": 0.5, "epoch": 119}),
    "list-of-tensors.pth": lambda: saved([tensor.detach() for tensor in module().parameters()]),
    "litema.ckpt": latent_diffusion,
    "mask-buffer-inf.pth": lambda: with_tensor("attn_mask", torch.full((4, 4), float("-inf"))),
    "method-not-called.pth": lambda: saved(module().state_dict),
    "mmengine-ema-small.pth": mmengine,
    "model-00002-of-00002.safetensors": shard,
    "namespace-beside.pth": lambda: saved({"model": network(), "args": Namespace(lr=0.1)}),
    "nested-dict-tensors.pth": lambda: saved(
        {"conv1": {"weight": torch.randn(8, 3, 3, 3)}, "conv2": {"weight": torch.randn(16, 8, 3, 3), "bias": torch.zeros(16)}}
    ),
    "netG_state_dict.pth": lambda: with_networks("netG_state_dict", "netD_state_dict"),
    "no-suffix.pth": lambda: saved({"conv1": torch.randn(8, 3, 3, 3), "conv2": torch.randn(8, 8, 3, 3)}),
    "numpy-scalar-beside.pth": lambda: beside(np.float64(0.9)),
    "omegaconf-beside.pth": lambda: of_class("omegaconf.dictconfig.DictConfig", {"_content": {"lr": 0.1}}, "model."),
    "only-1x1-named-kernel.pth": lambda: saved({"conv1.kernel": torch.randn(8, 3, 3, 3), "conv1.bias": torch.zeros(8)}),
    "own-attribute-network.pth": lambda: saved(network(prefix="network.")),
    "params_ema.pth": lambda: with_networks("params_ema", "params"),
    "posixpath-beside.pth": lambda: beside(pathlib.PurePosixPath("/runs/1")),
    "prefix-backbone.pth": lambda: saved({f"backbone.{name}": tensor for name, tensor in resnet8().items()}),
    "prefix-encoder.pth": lambda: saved({f"encoder.{name}": tensor for name, tensor in resnet8().items()}),
    "protocol4.pth": lambda: protocol(4),
    "protocol5.pth": lambda: protocol(5),
    "pruned-mask.pth": lambda: pruned(0, 3),
    "pruned-one-layer.pth": lambda: pruned(0),
    "pure-pickle-numpy.pkl": lambda: pickle.dumps({"model": {name: one.numpy() for name, one in network().items()}}),
    "pure-pickle-tensors.pkl": lambda: pickle.dumps(network()),
    "qat-observers-inf.pth": lambda: saved(
        {
            **network(),
            "0.activation_post_process.min_val": torch.tensor(float("inf")),
            "0.activation_post_process.max_val": torch.tensor(float("-inf")),
        }
    ),
    "quantised-dynamic-or-static.pth": lambda: saved(
        {
            "conv.weight": quantised(torch.randn(8, 3, 3, 3)),
            "conv.bias": torch.zeros(8),
            "conv.scale": torch.tensor(0.1),
            "conv.zero_point": torch.tensor(0),
        }
    ),
    "rng-states.pth": rng_states,
    "sparse-buffer.pth": lambda: with_tensor("adj", torch.eye(4).to_sparse()),
    "sparse-coo.pth": lambda: saved({name: one.to_sparse() if one.ndim == 4 else one for name, one in network().items()}),
    "spectral_norm-old.pth": lambda: reparametrised(nn.utils.spectral_norm),
    "student-teacher.pth": lambda: with_networks("student", "teacher", "module."),
    "swa-averagedmodel-small.pth": lambda: saved(averaged()),
    "tied-save_model.safetensors": tied,
    "torch-averagedmodel.pth": lambda: saved(AveragedModel(ResNet(8)).state_dict()),
    "tuple-checkpoint.pth": lambda: saved((network(), {"lr": 0.1})),
    "two-networks.pth": lambda: with_networks("generator", "discriminator"),
    "u16.safetensors": lambda: with_tensor("buf", torch.arange(4).to(torch.uint16), safe=True),
    "weight_norm-old.pth": lambda: reparametrised(old_weight_norm),
    "whole-module.pt": lambda: saved(module()),
    "windowspath-beside.pth": lambda: beside(WindowsPath()),
    "zipped-pth.zip": lambda: zip_of("model.pth", saved(network())),
}
