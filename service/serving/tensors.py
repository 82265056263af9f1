"""The tensors of a rebuilt network as bytes, rendered while they are read."""

import math
from collections.abc import Generator

import torch
from torch import Tensor

from nern import tensorfile
from nern.rendering import blocks_of
from service.serving.predictors import Served


class Tensors:
    """The tensors of a rebuilt network: names, dtypes and shapes in `described`, in the order of the checkpoint.

    Tied weights have each of their names. A layer that the checkpoint stores in a form, such as weight norm, has the tensors of
    that form; the methods take the name of the layer, too.
    """

    def __init__(self, served: Served) -> None:
        self._served = served
        artefact = served.artefact
        # The layers by the names of the tensors that have their bytes, and by those of tensors that are computed from them.
        self._layer_index = {layer.name: index for index, layer in enumerate(served.layers)}
        self._computed: dict[str, int] = {}
        for index, form in artefact.forms.items():
            self._layer_index[form.parts[0]] = index
            self._computed |= dict.fromkeys(form.rebuilt[1:], index)
            if form.kind == "pruned":
                self._computed[form.weight] = self._layer_index.pop(form.weight)
        self._stored_as = {name: name for name in artefact.names} | artefact.aliases
        self.described = {name: self.describe(name) for name in self._stored_as}

    def describe(self, name: str) -> tuple[torch.dtype, tuple[int, ...]]:
        """The dtype and the shape of a tensor."""
        stored = self._stored_as.get(name, name)
        if stored in self._layer_index:
            layer = self._served.layers[self._layer_index[stored]]
            return layer.dtype, layer.shape
        if stored in self._computed:
            facts = self._served.artefact.forms[self._computed[stored]].of(stored)
            return facts.dtype, facts.shape
        entry = self._served.artefact.kept(stored)
        return entry.dtype, entry.shape

    def read(self, name: str, start: int, stop: int) -> Generator[bytes, None, None]:
        """Yields bytes start..stop of a tensor.

        Blocks that the range does not cover are not rendered, unless the tensor is computed from the whole layer.
        """
        stored = self._stored_as.get(name, name)
        if stored in self._layer_index:
            yield from self._rendered(self._layer_index[stored], start, stop)
        elif stored in self._computed:
            yield tensorfile.to_bytes(self._from_layer(stored))[start:stop]
        else:
            kept = self._served.artefact.kept(stored)
            yield from self._served.stored(kept.start + start, kept.start + stop)

    def widened(self, name: str) -> bytes:
        """The bytes of a floating-point tensor in float32."""
        dtype, shape = self.describe(name)
        content = b"".join(self.read(name, 0, tensorfile.nbytes_of(dtype, shape)))
        return tensorfile.to_bytes(tensorfile.from_bytes(content, dtype, shape).float())

    def _from_layer(self, name: str) -> Tensor:
        """A tensor of a form that is computed from the whole layer, or the weight that the form computes."""
        artefact, index = self._served.artefact, self._computed[name]
        form, layer = artefact.forms[index], self._served.layers[index]
        blocks = blocks_of(artefact.representation.tiles.count(index))
        weight = torch.cat([self._served.block(index, block) for block in range(blocks)]).reshape(layer.shape)
        kept = {part: artefact.tensor(f"kept.{part}") for part in form.parts if f"kept.{part}" in artefact.entries}
        return form.applied(weight, kept) if name == form.weight else form.stored(weight, kept)[name]

    def _rendered(self, layer: int, start: int, stop: int) -> Generator[bytes, None, None]:
        """Yields bytes start..stop of the tensor of a layer, block by block."""
        unit = self._served.artefact.representation.tiles.units[layer]
        kernel_nbytes = math.prod(unit.kernel_size) * unit.dtype.itemsize
        first, last = (self._served.block_of(layer, at // kernel_nbytes) for at in (start, stop - 1))
        for block in range(first, last + 1):
            offset = self._served.first_kernel(layer, block) * kernel_nbytes
            yield tensorfile.to_bytes(self._served.block(layer, block))[max(0, start - offset) : stop - offset]
