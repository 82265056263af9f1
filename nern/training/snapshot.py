"""Everything that a training needs to go on from a step, bit for bit, and its file: safetensors, no pickle."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from nern import tensorfile
from nern.errors import BadArtefact, BadSnapshot
from nern.training.trained import Trial

VERSION = 1

# Names of tensors in a file are paths into the snapshot.
SEPARATOR = "/"


@dataclass(frozen=True)
class SearchState:
    """What a search for a size has found so far: its finished trials, and the end of the best of them."""

    drop: float
    trials: tuple[Trial, ...]
    best: "Snapshot | None"


@dataclass(frozen=True)
class Snapshot:
    """A training after `step` steps. The tensors are the training's own: `detached` makes copies of them.

    training: which training this is, as a hash of the plan and of its inputs.
    seconds: how long the training has taken.
    positions: the permutation of each layer.
    weights: the weights of each layer, if they are not the original ones.
    fitted_to: the weights that the predictor is fitted to, if they are not `weights`.
    predictor, optimizers: their state_dicts.
    selection: the best and the last evaluation, and the predictor at the best one.
    images: the images made so far, if the data is matched noise.
    """

    training: str
    step: int
    seconds: float
    positions: Sequence[Tensor]
    weights: Sequence[Tensor] | None
    fitted_to: Sequence[Tensor] | None
    predictor: Mapping[str, Tensor]
    optimizers: Sequence[Mapping[str, Any]]
    selection: Mapping[str, Any]
    images: Mapping[str, Tensor] | None
    search: SearchState | None = None

    def detached(self) -> "Snapshot":
        """The same with copies of all tensors, which the training does not change."""
        return _from_plain(_copied(_to_plain(self)))

    def write(self, path: Path) -> None:
        """Writes a file that `read` reads. The file is not synchronised to the disk."""
        tensors: dict[str, Tensor] = {}
        about = {"version": VERSION, "snapshot": _take_tensors(_to_plain(self), "", tensors)}
        header, _ = tensorfile.make_header(
            ((name, tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()), {"nern": json.dumps(about)}
        )
        with path.open("wb") as file:
            file.write(header)
            for tensor in tensors.values():
                file.write(tensorfile.to_bytes(tensor))

    @classmethod
    def read(cls, path: Path) -> "Snapshot":
        """The snapshot in a file. Raises BadSnapshot."""
        try:
            tensors, metadata = tensorfile.load_with_metadata(path)
            about = json.loads(metadata["nern"])
            if about["version"] != VERSION:
                raise BadSnapshot(f"the snapshot has version {about['version']}; this release reads version {VERSION}")
            return _from_plain(_put_tensors(about["snapshot"], tensors))
        except (BadArtefact, KeyError, TypeError, ValueError) as error:
            raise BadSnapshot(f"{path.name} is not a snapshot, or is damaged") from error


def _to_plain(snapshot: Snapshot) -> dict[str, Any]:
    """The snapshot in dictionaries, lists, tensors and what JSON has."""
    plain = {field.name: getattr(snapshot, field.name) for field in fields(snapshot)}
    if search := snapshot.search:
        plain["search"] = {
            "drop": search.drop,
            "trials": [asdict(trial) for trial in search.trials],
            "best": _to_plain(search.best) if search.best else None,
        }
    return plain


def _from_plain(plain: dict[str, Any]) -> Snapshot:
    snapshot = Snapshot(**plain)
    if (search := plain["search"]) is None:
        return snapshot
    trials = tuple(Trial(**trial) for trial in search["trials"])
    best = _from_plain(search["best"]) if search["best"] else None
    return replace(snapshot, search=SearchState(search["drop"], trials, best))


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list | tuple) else value


def _take_tensors(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """The value as JSON, its tensors moved to `tensors`. A dictionary becomes pairs, since its keys may be numbers."""
    if isinstance(value, Tensor):
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, Mapping):
        pairs = [[key, _take_tensors(item, f"{name}{SEPARATOR}{key}", tensors)] for key, item in value.items()]
        return {"pairs": pairs}
    if isinstance(value, list | tuple):
        return [_take_tensors(item, f"{name}{SEPARATOR}{number}", tensors) for number, item in enumerate(value)]
    assert value is None or isinstance(value, str | int | float | bool), f"{name} is a {type(value).__name__}"
    return value


def _put_tensors(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The inverse of `_take_tensors`."""
    if isinstance(value, dict):
        if "tensor" in value:
            return tensors[value["tensor"]]
        return {key: _put_tensors(item, tensors) for key, item in value["pairs"]}
    return [_put_tensors(item, tensors) for item in value] if isinstance(value, list) else value
