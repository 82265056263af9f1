"""A network whose represented weights are quantised, as one file: integer codes and a scale for every filter.

The file is a safetensors file. Of a represented layer it has `codes.{name}` (Huffman coded as in an artefact) and
`scales.{name}` (float16); every other tensor is `kept.{name}`. The metadata entry `nern` is a JSON object: bits, and layers
with name, shape, dtype and place in the state_dict.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from nern import coding, tensorfile
from nern.layers import StateDict, find_layers
from nern.quantisation import best_scales, max_code


@dataclass(frozen=True)
class Quantised:
    """A weight as int16 codes in the weight's shape and float32 scales (filters,) that float16 can hold."""

    codes: Tensor
    scales: Tensor

    @classmethod
    def nearest(cls, weight: Tensor, bits: int) -> "Quantised":
        """Rounds to the nearest code, with the scale of each filter that gives the least squared error."""
        filters = weight.flatten(1)
        scales, largest = best_scales(filters, bits), max_code(bits)
        codes = (filters / scales[:, None]).round().clamp(-largest, largest)
        return cls(codes.to(torch.int16).view(weight.shape), scales)

    def weight(self) -> Tensor:
        """The weight that the codes stand for, float32."""
        return (self.codes.flatten(1).float() * self.scales[:, None]).view(self.codes.shape)


@dataclass(frozen=True)
class Sizes:
    """Bytes of a file: codes and scales, kept tensors, and the whole file with its header."""

    coded: int
    kept: int
    total: int


def write(quantised: Mapping[str, Quantised], state_dict: StateDict, bits: int) -> tuple[bytes, Sizes]:
    """The file of a network whose represented layers are all in `quantised`, by name."""
    layers = find_layers(state_dict)
    place = {name: number for number, name in enumerate(state_dict)}
    coded: dict[str, Tensor] = {}
    for layer in layers:
        one = quantised[layer.name]
        coded[f"codes.{layer.name}"] = coding.encode(one.codes, bits)
        coded[f"scales.{layer.name}"] = one.scales.half()
    kept = {f"kept.{name}": tensor for name, tensor in state_dict.items() if name not in quantised}
    about = {
        "bits": bits,
        "layers": [
            {"name": layer.name, "shape": layer.shape, "dtype": tensorfile.NAMES[layer.dtype], "place": place[layer.name]}
            for layer in layers
        ],
    }
    tensors = coded | kept
    header, _ = tensorfile.make_header(
        ((name, tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()), {"nern": json.dumps(about)}
    )
    content = header + b"".join(tensorfile.to_bytes(tensor) for tensor in tensors.values())
    return content, Sizes(_nbytes(coded), _nbytes(kept), len(content))


def read(content: bytes) -> StateDict:
    """The state_dict that a file stands for, in the order and with the dtypes of the original one."""
    length = tensorfile.header_length(content[:8])
    entries, metadata = tensorfile.parse_header(content[8 : 8 + length])
    about = json.loads(metadata["nern"])

    def tensor(name: str) -> Tensor:
        entry = entries[name]
        return tensorfile.from_bytes(content[entry.start : entry.stop], entry.dtype, entry.shape)

    items = [(name.removeprefix("kept."), tensor(name)) for name in entries if name.startswith("kept.")]
    for layer in sorted(about["layers"], key=lambda layer: int(layer["place"])):
        name = layer["name"]
        codes = coding.decode(tensor(f"codes.{name}"), tuple(layer["shape"]), about["bits"])
        weight = Quantised(codes, tensor(f"scales.{name}").float()).weight()
        items.insert(layer["place"], (name, weight.to(tensorfile.DTYPES[layer["dtype"]])))
    return dict(items)


def _nbytes(tensors: Mapping[str, Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())
