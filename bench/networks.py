"""Does a network of any kind come back? Networks whose code the service does not know, each as three kinds of files.

python -m bench.networks [--only NAME ...] [--ratio 0.72] [--steps N] [--distillation-steps N] [--quick]
                         [--checkpoints FOLDER --images FOLDER]

The networks of bench/zoo are trained on data that packages carry. Each is written as a state_dict, as an ONNX file and as
a .pt2 file of torch.export, and each file is read as the service reads it. "state_dict" says what the names and shapes
alone tell: an architecture by name, a proposed description of a plain sequence, or nothing. "onnx" and "pt2" are the largest
difference of the graph's outputs from those of the module, relative to the largest output. The predictor is distilled from
the .pt2 file, and the rebuilt weights are loaded into the module itself.

With --checkpoints and --images, the folders of bench.fidelity, the published networks for CIFAR-10 come first.

"original" and "rebuilt" are the quality on the test set, which is used for nothing else; "loss" is the part of the quality that
was lost. Bytes are fractions of the float32 bytes of the represented weights: "bytes" is predictor and permutation, "file" the
whole file with kept tensors and header.
"""

import argparse
import io
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

import nern
from bench.fidelity import FILES
from bench.tables import Row, parser, progress, show
from bench.zoo import cifar
from bench.zoo.networks import EXAMPLES, LARGE, Example
from bench.zoo.tasks import Task
from bench.zoo.training import fit, measure, outputs
from nern import architectures, artefact
from nern.artefact import Artefact
from nern.graph import exported, onnx_model
from nern.graph.interpreter import GraphNetwork
from nern.graph.proposal import propose
from nern.inputs import Inputs
from nern.network import Network
from nern.request import DecoupledRequest
from nern.teachers import call
from nern.training import train

# The size of a predictor, and its training. With float16 weights, 0.7 parameters for each weight are 35% of float32 bytes.
RATIO, STEPS = 0.72, 1500
NETWORK_STEPS = 600
QUICK = ("tutorial", "unet", "m5")

# Differences of outputs are measured on so many inputs of the test set.
COMPARED_INPUTS = 8


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--only", nargs="+", metavar="NAME", help=", ".join([*FILES, *EXAMPLES, *LARGE]))
    arguments.add_argument("--checkpoints", type=Path, metavar="FOLDER", help=f"holds {' and '.join(FILES.values())}")
    arguments.add_argument("--images", type=Path, metavar="FOLDER", help="holds CIFAR-10")
    arguments.add_argument("--ratio", type=float, default=RATIO, help="parameters of the predictor for each weight")
    arguments.add_argument("--steps", type=int, default=STEPS, help="steps of the training of a predictor")
    arguments.add_argument(
        "--distillation-steps", type=int, help="how many of these steps distil (default: the recipe's share)"
    )
    arguments.add_argument("--permutation", choices=("cross-filter", "in-filter", "none"), default="cross-filter")
    arguments.add_argument("--network-steps", type=int, default=NETWORK_STEPS, help="steps of the training of a network")
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    if (options.checkpoints is None) != (options.images is None):
        arguments.error("--checkpoints and --images belong together")
    published = cifar.examples(options.checkpoints, options.images) if options.checkpoints else {}
    examples = published | EXAMPLES | LARGE
    if unknown := set(options.only or ()) - examples.keys():
        arguments.error(f"not known here: {', '.join(sorted(unknown))}; the names are {', '.join(examples)}")
    names = options.only or (QUICK if options.quick else [*published, *EXAMPLES])
    rows: list[Row] = []
    failed: list[str] = []
    for number, name in enumerate(names):
        progress.print(f"{number + 1} of {len(names)}: {name}")
        example = examples[name]
        torch.manual_seed(options.seed)
        task, network = example.task(), example.build()
        if not example.trained:
            fit(network, task, steps=options.network_steps, learning_rate=example.learning_rate, seed=options.seed)
        try:
            row = represent(name, example, task, network, options)
            progress.print(f"  {row['original']:.2f} -> {row['rebuilt']:.2f} {row['unit']}, {row['minutes']:.1f} minutes")
            rows.append(row)
        except (nern.errors.NernError, RuntimeError) as error:
            progress.print(f"{name}: {error}")
            failed.append(f"{name}: {error}")
    show(rows, "Networks of any kind", options)
    losses = [float(row["loss, %"]) for row in rows]
    kinds = {examples[str(row["network"])].kind for row in rows}
    if losses:
        progress.print(f"{len(rows)} networks of {len(kinds)} kinds; the median loss is {statistics.median(losses):.2f}%")
    for failure in failed:
        progress.print(f"failed: {failure}")


def represent(name: str, example: Example, task: Task, network: nn.Module, options: argparse.Namespace) -> Row:
    """Reads the three files of a trained network, distils a predictor, and returns the row of the table."""
    state_dict = {key: tensor.detach().clone() for key, tensor in network.state_dict().items()}
    original, inputs = measure(network, task), tuple(part[:COMPARED_INPUTS] for part in task.inputs)
    pt2, program = read_pt2(network, inputs)
    onnx = read_onnx(network, inputs)
    ports = [port.name for port in program.program.inputs] if program.program else []
    data = Inputs(dict(zip(ports, task.inputs, strict=True)), task.targets)
    request = DecoupledRequest(
        ratio=options.ratio,
        steps=options.steps,
        reconstruction_steps=None if options.distillation_steps is None else options.steps - options.distillation_steps,
        layers="everything" if example.everything else "all",
        permutation=options.permutation,
        seed=options.seed,
        objective=task.objective if len(outputs(network, *inputs)) == 1 else None,
    )
    started = time.monotonic()
    trained = train(program, request, data=data)
    minutes = (time.monotonic() - started) / 60
    pieces, nbytes = artefact.write(trained.representation, state_dict)
    content = b"".join(pieces)
    rebuilt = Artefact(lambda start, stop: content[start:stop]).state_dict()
    network.load_state_dict(rebuilt)
    quality = measure(network, task)
    represented = sum(layer.weights for layer in trained.representation.layers)
    return {
        "network": name,
        "kind": example.kind,
        "state_dict": recognised(state_dict),
        "onnx": onnx,
        "pt2": pt2,
        "original": original,
        "rebuilt": quality,
        "unit": task.unit,
        "loss, %": 100 * (original - quality) / original,
        "weights": represented,
        "bytes, %": 25 * (nbytes.predictor + nbytes.permutation) / represented,
        "file, %": 25 * len(content) / represented,
        "minutes": minutes,
    }


def recognised(state_dict: dict[str, Tensor]) -> str:
    """What the names and shapes of a state_dict tell."""
    shapes = architectures.shapes_of(state_dict)
    if found := architectures.recognise(shapes):
        return found[0]
    return "sequence" if propose(shapes) else "-"


def read_pt2(network: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[float, Network]:
    """The difference of the graph in a .pt2 file, and the network that was read."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "network.pt2"
        nern.export(network, inputs, path)
        with path.open("rb") as file:
            read = exported.read(file, lambda file: {})
    made = Network(read.state_dict, program=read.program)
    return difference(network, made.build(), inputs), made


def read_onnx(network: nn.Module, inputs: tuple[Tensor, ...]) -> float:
    """The difference of the graph in an ONNX file, as torch writes it by default."""
    file = io.BytesIO()
    torch.onnx.export(network, inputs, file, dynamo=True, verbose=False)  # type: ignore[arg-type]  # files are possible
    read = onnx_model.read(file.getvalue())
    return difference(network, GraphNetwork(read.program, read.state_dict), inputs)


@torch.no_grad()
def difference(network: nn.Module, graph: nn.Module, inputs: tuple[Tensor, ...]) -> float:
    """The largest difference of the outputs of a graph, relative to the largest output."""
    pairs = list(zip(outputs(network, *inputs), call(graph, {}, inputs).values(), strict=True))
    return max(float((found - wanted).abs().max() / wanted.abs().max()) for wanted, found in pairs)


if __name__ == "__main__":
    main()
