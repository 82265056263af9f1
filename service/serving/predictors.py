"""Predictors that are being served: loaded once, rendered block by block, both kept in bounded caches."""

from collections.abc import Hashable
from threading import Lock

from cachetools import LRUCache
from torch import Tensor

from nern.artefact import Artefact
from nern.layers import Layer
from nern.rendering import BLOCK, render_block
from service.store import predictors
from service.store.database import Database

MAX_LOADED = 8
MAX_RENDERED_BYTES = 64 * 2**20


class Served:
    """One predictor, ready to render. Its kept tensors stay in the database until they are read."""

    def __init__(self, id: str, database: Database, rendered: "LRUCache[Hashable, Tensor]", lock: Lock) -> None:
        self.id = id
        self._database = database
        self._rendered = rendered
        self._lock = lock
        self.artefact = Artefact(self.read)

    @property
    def layers(self) -> tuple[Layer, ...]:
        return self.artefact.representation.layers

    def read(self, start: int, stop: int) -> bytes:
        """Bytes start..stop of the artefact."""
        with self._database.read() as session:
            return predictors.read(session, self.id, start, stop)

    def kernels(self, layer: int, numbers: Tensor) -> Tensor:
        """Kernels of one layer by their numbers in it (n,), in the layer's dtype: (n, *size). n must not be 0."""
        tiles = self.artefact.representation.tiles
        filter, channel = numbers // self.layers[layer].channels, numbers % self.layers[layer].channels
        tile = filter * tiles.per_filter[layer] + channel // tiles.width[layer]
        blocks, place = (tile // BLOCK).unique(return_inverse=True)
        rendered = [self._block(layer, block) for block in blocks.tolist()]
        kernels = rendered[0].new_empty(len(numbers), *self.layers[layer].size)
        for position, block in enumerate(rendered):
            chosen = place == position
            kernels[chosen] = block[tile[chosen] % BLOCK, channel[chosen] % tiles.width[layer]]
        return kernels

    def _block(self, layer: int, block: int) -> Tensor:
        key = (self.id, layer, block)
        with self._lock:
            if (found := self._rendered.get(key)) is not None:
                return found
        rendered = render_block(self.artefact.representation, layer, block)
        with self._lock:
            self._rendered[key] = rendered
        return rendered


class Predictors:
    """The predictors of a database. Safe to use from several threads."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = Lock()
        self._loading = Lock()
        self._loaded: LRUCache[str, Served] = LRUCache(MAX_LOADED)
        self._rendered: LRUCache[Hashable, Tensor] = LRUCache(MAX_RENDERED_BYTES, getsizeof=lambda block: block.nbytes)

    def load(self, id: str) -> Served:
        """A predictor that is known to exist. Blocks while it is read from the database."""
        with self._loading:
            if found := self._loaded.get(id):
                return found
            served = self._loaded[id] = Served(id, self._database, self._rendered, self._lock)
            return served
