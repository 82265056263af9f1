"""The ONNX file of a job's network, without its tensors."""

import logging

import torch
from torch import Tensor

from nern.errors import BadProgram
from nern.evaluation import Evaluator
from nern.graph import to_onnx
from nern.graph.interpreter import GraphNetwork
from nern.graph.onnx_writer import Skeleton
from nern.graph.program import Program
from nern.network import Network
from service.store.tables import Graph, Job

log = logging.getLogger(__name__)

EXAMPLES = 2


def skeleton_of(job: Job, graph: Graph | None, network: Network, evaluator: Evaluator | None) -> Skeleton | None:
    """The ONNX file that was uploaded, or one that torch writes for another graph, without its tensors.

    None for a network that is not a graph, and for a graph that torch can't write as ONNX. A job succeeds without an ONNX file.
    """
    program = network.facts.program
    if program is None:
        return None
    if graph is not None and graph.skeleton is not None and graph.initialisers is not None and job.network is None:
        return Skeleton(graph.skeleton, tuple(graph.initialisers))
    if (inputs := _examples(program, evaluator)) is None:
        return None
    try:
        return to_onnx.make_skeleton(GraphNetwork(program, network.weights).eval(), inputs)
    except (BadProgram, RuntimeError, ImportError) as error:
        log.warning("there will be no ONNX file: %s", error)
        return None


def _examples(program: Program, evaluator: Evaluator | None) -> tuple[Tensor, ...] | None:
    """Inputs for the exporter: some of the held-out set, or zeros of the shapes of the program. None if these are unknown."""
    if evaluator is not None:
        batch = next(iter(evaluator.held_out.batches()))
        return tuple(part[:EXAMPLES] for part in (batch if isinstance(batch, tuple) else (batch,)))
    shapes = [port.shape for port in program.inputs]
    if any(shape is None or None in shape[1:] for shape in shapes):
        return None
    return tuple(torch.zeros([extent or EXAMPLES for extent in shape or ()]) for shape in shapes)
