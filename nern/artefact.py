"""The artefact: a safetensors file from which the whole network can be rebuilt.

The file has these tensors:

- `predictor.*`: the state_dict of the predictor. If the predictor is quantised, each linear layer has entropy-coded codes
  `predictor.*.codes` and scales `predictor.*.steps` in place of its weight.
- `permutation.{number of the layer}`: the packed permutation of each layer (see `nern.permutation.pack`), uint8.
- `kept.*`: the tensors of the state_dict that are not represented, in the order of the state_dict.
- `onnx`: if the network is a graph, an ONNX file without its tensors, compressed with zlib, uint8.

The metadata entry `nern` is a JSON object with these members: `version`; `architecture`; `layers`, each with its place in the
state_dict; `small_kernels`; `predictor`, the configuration of the predictor; `bits`, those of each linear layer of a quantised
predictor; `scales`, one for each layer; and `permutation`, the kind of permutation. Tied weights are stored once: in version 4,
there is a member `aliases` with the names of tensors that are the same as another, each with the name of the other. With an
ONNX file, there is a member `onnx`: the names of its initialisers, and whether floating-point ones are float32 in it.

In version 5, a layer may have a member `form`: the checkpoint stores the weight in a form, such as weight norm (`nern.forms`).
The place of such a layer is a list, the places of the tensors that the weight replaces. The other tensors of the form are kept.
"""

import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nern import coding, tensorfile
from nern.errors import BadArtefact
from nern.forms import Form, find_forms
from nern.graph.onnx_writer import Skeleton
from nern.layers import Layer, StateDict
from nern.permutation import pack, unpack
from nern.predictor import Predictor, PredictorConfig
from nern.rendering import render_layer
from nern.representation import Representation
from nern.state_dicts import aliases
from nern.tensorfile import Entry
from nern.tiles import Tiles

# Version 4 has `aliases`, and version 5 has forms. An artefact without both has version 3, which release 0.1.0 reads.
VERSIONS = (3, 4, 5)

Read = Callable[[int, int], bytes]
"""Reads the bytes of a file from the offset `start` to before the offset `stop`."""


@dataclass(frozen=True)
class PartBytes:
    """The number of bytes of each part of an artefact.

    `header` is the header of the safetensors file, `graph` the ONNX file without its tensors.
    """

    predictor: int
    permutation: int
    kept: int
    header: int
    graph: int = 0

    @property
    def total(self) -> int:
        """The number of bytes of the whole file."""
        return self.predictor + self.permutation + self.kept + self.header + self.graph


def write(
    representation: Representation,
    state_dict: Mapping[str, Tensor],
    *,
    architecture: str | None = None,
    onnx: Skeleton | None = None,
) -> tuple[Iterator[bytes], PartBytes]:
    """The bytes of the artefact, one tensor at a time, and the number of bytes of its parts.

    `state_dict` is the whole network that `representation` represents. `onnx` is its ONNX file without the tensors.
    """
    tiles = representation.tiles
    represented = {layer.name for layer in representation.layers}
    shared = {alias: name for alias, name in aliases(state_dict).items() if alias not in represented}
    state_dict = {name: tensor for name, tensor in state_dict.items() if name not in shared}
    place = {name: number for number, name in enumerate(state_dict)}
    forms = {form.weight: form.settled(state_dict) for form in find_forms(state_dict) if form.weight in represented}
    replaced = represented | {name for form in forms.values() for name in form.replaced}
    module = representation.predictor
    predictor = {
        f"predictor.{name}": _narrowed(tensor)
        for name, tensor in (_coded(module) if module.quantised else module.state_dict()).items()
    }
    permutation = {
        f"permutation.{number}": pack(
            representation.positions(number), layer.filters, tiles.per_filter[number], representation.permutation
        )
        for number, layer in enumerate(representation.layers)
    }
    kept = {f"kept.{name}": tensor for name, tensor in state_dict.items() if name not in replaced}
    about = {
        "version": VERSIONS[2 if forms else 1 if shared else 0],
        "architecture": architecture,
        "layers": [
            {
                "name": layer.name,
                "shape": layer.shape,
                "dtype": tensorfile.NAMES[layer.dtype],
                **_placed(layer.name, forms.get(layer.name), place),
            }
            for layer in representation.layers
        ],
        "small_kernels": tiles.small_kernels,
        "predictor": representation.predictor.config.model_dump(mode="json"),
        "bits": [layer.bits for _, layer in module.linear()] if module.quantised else None,
        "scales": representation.scales,
        "permutation": representation.permutation,
    }
    if shared:
        about["aliases"] = shared
    graph = {}
    if onnx:
        about["onnx"] = {"names": onnx.names, "widened": onnx.widened, "nbytes": len(onnx.content)}
        graph["onnx"] = torch.frombuffer(bytearray(zlib.compress(onnx.content, 9)), dtype=torch.uint8)
    tensors = predictor | permutation | kept | graph
    header, _ = tensorfile.make_header(
        ((name, tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()), {"nern": json.dumps(about)}
    )

    def content() -> Iterator[bytes]:
        yield header
        yield from (tensorfile.to_bytes(tensor) for tensor in tensors.values())

    nbytes = PartBytes(_bytes(predictor), _bytes(permutation), _bytes(kept), len(header), _bytes(graph))
    return content(), nbytes


class Artefact:
    """An artefact that is read through `read`.

    The representation is read at once, a kept tensor only when it is asked for. `names` has the names of the state_dict in
    order without those in `aliases`, `entries` the tensors of the file. `forms` has the forms that layers come back in, by the
    number of the layer. Raises BadArtefact if the file is not an artefact, is damaged, or has another version.
    """

    def __init__(self, read: Read) -> None:
        self._read = read
        length = tensorfile.header_length(read(0, 8))
        self.entries, metadata = tensorfile.parse_header(read(8, 8 + length))
        try:
            about = json.loads(metadata["nern"])
            if about["version"] not in VERSIONS:
                known = ", ".join(map(str, VERSIONS))
                raise BadArtefact(f"the artefact has version {about['version']}; this release reads versions {known}")
            self.aliases: dict[str, str] = about.get("aliases", {})
            self._onnx = about.get("onnx")
            self.architecture: str | None = about["architecture"]
            self.names = [name.removeprefix("kept.") for name in self.entries if name.startswith("kept.")]
            self.forms = {
                number: Form.from_json(layer["form"]) for number, layer in enumerate(about["layers"]) if "form" in layer
            }
            places: dict[int, str] = {}
            for number, layer in enumerate(about["layers"]):
                form = self.forms.get(number)
                places |= dict(zip(layer["place"], form.replaced, strict=True)) if form else {layer["place"]: layer["name"]}
            for place, name in sorted(places.items()):
                self.names.insert(place, name)
            layers = [
                Layer(layer["name"], tuple(layer["shape"]), tensorfile.DTYPES[layer["dtype"]]) for layer in about["layers"]
            ]
            tiles = Tiles(layers, about["small_kernels"])
            predictor = Predictor(PredictorConfig(**about["predictor"]), tiles)
            stored = {
                name.removeprefix("predictor."): self.tensor(name) for name in self.entries if name.startswith("predictor.")
            }
            predictor.load_state_dict(_decoded(predictor, stored, about["bits"]) if about["bits"] else stored)
            kind = about["permutation"]
            positions = [
                unpack(self.tensor(f"permutation.{number}"), layer.filters, tiles.per_filter[number], kind)
                for number, layer in enumerate(layers)
            ]
            scales = [float(scale) for _, scale in zip(layers, about["scales"], strict=True)]
        except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
            raise BadArtefact("the file is not an artefact, or is damaged") from error
        predictor.requires_grad_(False)
        self.representation = Representation(tiles, predictor, permutation=kind, positions=positions, scales=scales)

    def kept(self, name: str) -> Entry:
        """The place in the file of a kept tensor, by its name in the state_dict."""
        return self.entries[f"kept.{name}"]

    def tensor(self, name: str) -> Tensor:
        """One tensor of the file, by its name in the file, in the shape and dtype of its entry. Raises BadArtefact."""
        entry = self.entries[name]
        data = self._read(entry.start, entry.stop)
        if len(data) != entry.stop - entry.start:
            raise BadArtefact(f"the file ends inside {name!r}")
        return tensorfile.from_bytes(data, entry.dtype, entry.shape)

    def onnx(self) -> Skeleton | None:
        """The ONNX file of the network without its tensors, or None if there is none. Raises BadArtefact."""
        if self._onnx is None:
            return None
        content = zlib.decompressobj().decompress(tensorfile.to_bytes(self.tensor("onnx")), self._onnx["nbytes"])
        if len(content) != self._onnx["nbytes"]:
            raise BadArtefact("the ONNX file in the artefact is damaged")
        return Skeleton(content, tuple(self._onnx["names"]), self._onnx["widened"])

    def state_dict(self) -> StateDict:
        """The whole network, in the original order: the represented layers rendered, the kept tensors as they were.

        A layer that was stored in a form comes back in it. Aliases come last. They are the same tensors as those that they are
        aliases of.
        """
        kept = {name: self.tensor(f"kept.{name}") for name in self.names if f"kept.{name}" in self.entries}
        rebuilt: StateDict = {}
        for number, layer in enumerate(self.representation.layers):
            weight, form = render_layer(self.representation, number), self.forms.get(number)
            rebuilt |= form.stored(weight, kept) if form else {layer.name: weight}
        tensors = {name: rebuilt[name] if name in rebuilt else kept[name] for name in self.names}
        return tensors | {alias: tensors[name] for alias, name in self.aliases.items()}


def _placed(name: str, form: Form | None, place: Mapping[str, int]) -> dict[str, object]:
    """The place of a layer in the state_dict, and its form if there is one."""
    if form is None:
        return {"place": place[name]}
    return {"place": [place[part] for part in form.replaced], "form": form.to_json()}


def _narrowed(tensor: Tensor) -> Tensor:
    """A float32 tensor as float16 if float16 can hold its values exactly, otherwise the tensor itself."""
    if tensor.dtype == torch.float32 and torch.equal((half := tensor.half()).float(), tensor):
        return half
    return tensor


def _coded(predictor: Predictor) -> dict[str, Tensor]:
    """The tensors of a quantised predictor: `codes` and `steps` of each linear layer, and the other tensors in float16.

    In the file, the scales of a layer are called `steps`.
    """
    parts = {
        name: tensor.half()
        for name, tensor in predictor.state_dict().items()
        if not name.endswith(("weight", "log_scales", "mask"))
    }
    for name, layer in predictor.linear():
        parts |= {
            f"{name}.codes": coding.encode(layer.codes().cpu(), layer.bits),
            f"{name}.steps": layer.scales().detach().half(),
        }
    return parts


def _decoded(predictor: Predictor, parts: Mapping[str, Tensor], bits: Sequence[int]) -> dict[str, Tensor]:
    """The state_dict of a quantised predictor from its tensors in the file and the bits of each linear layer."""
    state_dict = {name: tensor.float() for name, tensor in parts.items() if not name.endswith(("codes", "steps"))}
    for (name, layer), width in zip(predictor.linear(), bits, strict=True):
        codes = coding.decode(parts[f"{name}.codes"], tuple(layer.weight.shape), width)
        state_dict[f"{name}.weight"] = codes.float() * parts[f"{name}.steps"].float()[:, None]
    return state_dict


def _bytes(tensors: Mapping[str, Tensor]) -> int:
    return sum(tensorfile.nbytes_of(tensor.dtype, tensor.shape) for tensor in tensors.values())
