"""The inputs of a training, and its identity."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from nern import tensorfile
from nern.evaluation import Evaluator
from nern.images import Images
from nern.inputs import Inputs
from nern.network import Network
from nern.plan import Plan
from nern.training.teacher import Data, Teacher


@dataclass(frozen=True)
class Subject:
    """The network and the data of a training, its teacher and evaluator if there are any, and its device.

    given_hash: a hash of the network and the data, or None to compute one.
    """

    network: Network
    data: Data | None
    given_hash: str | None
    teacher: Teacher | None
    evaluator: Evaluator | None
    device: torch.device

    @property
    def weights(self) -> Mapping[str, Tensor]:
        """The tensors of the network by name, and the weights of all layers."""
        return self.network.weights

    def identity(self, plan: Plan) -> str:
        """A hash of the plan and of the inputs: trainings of equal identity are equal."""
        text = f"{plan.request.model_dump_json()} {self._inputs_hash}"
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    @cached_property
    def _inputs_hash(self) -> str:
        return self.given_hash or digest(self.network, self.data)


def digest(network: Network, data: Data | None) -> str:
    """A hash of all inputs of a training except the request."""
    hash = hashlib.blake2b(f"{network.architecture}".encode(), digest_size=16)
    if network.program is not None:
        hash.update(json.dumps(network.program.to_json()).encode())
    _add(hash, network.state_dict)
    if isinstance(data, Inputs):
        _add(hash, data.arrays)
        _add(hash, {} if data.labels is None else {"labels": data.labels})
    elif isinstance(data, Images):
        hash.update(f"{data.pixels_NHWC.shape} {data.mean} {data.std}".encode())
        hash.update(data.pixels_NHWC.contiguous().numpy().data)
        hash.update(b"" if data.labels_N is None else tensorfile.to_bytes(data.labels_N))
    else:
        hash.update(f"{data}".encode())
    return hash.hexdigest()


def _add(hash: hashlib.blake2b, tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        hash.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        hash.update(tensorfile.to_bytes(tensor))
