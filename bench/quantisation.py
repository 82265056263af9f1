"""What do other codecs make of the same network at the same bytes? Rounding, NNCodec and quantisation-aware distillation.

python -m bench.quantisation --checkpoints FOLDER --images FOLDER [--network NAME ...] [--distil-steps 100 2000] [--quick]

The folders are those of bench.fidelity. Every row is a file that is written, decoded and tested:

- rounding: integer codes and a scale for each filter that gives the least squared error; Huffman coding; no training;
- NNCodec (ISO/IEC 15938-17): the bitstream of the whole state_dict; no training;
- distillation: as rounding, but weights and scales are trained with rounding in the forward pass (LSQ, straight-through
  estimator), for the KL divergence from the original network on the training images; the state with the least divergence on
  the held-out set. 2,000 steps for ResNet-20 take about as long as a predictor in few bits: 14 minutes, at 0.42 s a step.

"file" is the whole file, "artefact" leaves out kept tensors and header, "with kept" leaves out the header; all are fractions of
the float32 bytes of the represented weights. NNCodec codes kept tensors too: its "artefact" is a second bitstream, of the
represented weights alone. The divergence is measured on the held-out set, in nats.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from bench.fidelity import FILES, accuracy, load, read_images
from bench.rivals import nncodec, quantised
from bench.rivals.distillation import distil
from bench.rivals.quantised import Quantised
from bench.tables import Row, parser, progress, show
from nern.architectures import build
from nern.evaluation import Evaluator, HeldOutSet
from nern.images import Images, InputSource
from nern.layers import Layer, StateDict, find_layers
from nern.planning import MAX_HELD_OUT_IMAGES
from nern.randomness import generator

BITS = (8, 7, 6, 5, 4, 3)
QP = (-38, -32, -29, -26, -25, -24, -23, -22, -21, -20)
DISTILLED_BITS = (4, 3)
DISTILLATION_STEPS = (100, 2000)
LEARNING_RATE = 3e-4

QUICK_BITS, QUICK_QP = (5, 4), (-26, -24)

# As a job does.
HELD_OUT = 0.1


@dataclass(frozen=True)
class Subject:
    """A network to compress, its accuracy in percent, and what it is distilled from and compared on."""

    architecture: str
    state_dict: StateDict
    network: nn.Module
    original: float
    source: InputSource
    judge: Evaluator
    test: Images

    @property
    def layers(self) -> list[Layer]:
        return find_layers(self.state_dict)

    def row(self, method: str, setting: str, nbytes: dict[str, int | None], seconds: float, decoded: StateDict) -> Row:
        """The line of the table for one decoded file."""
        represented = sum(4 * layer.weights for layer in self.layers)
        rebuilt = accuracy(build(self.architecture, decoded), self.test)
        return {
            "network": self.architecture,
            "method": method,
            "setting": setting,
            **{part: None if count is None else count / represented for part, count in nbytes.items()},
            "minutes": seconds / 60,
            "divergence": self.judge.compare(decoded).divergence,
            "original": self.original,
            "accuracy": rebuilt,
            "drop": self.original - rebuilt,
        }


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--checkpoints", type=Path, required=True)
    arguments.add_argument("--images", type=Path, required=True)
    arguments.add_argument("--network", nargs="+", choices=FILES, default=list(FILES), metavar="NAME", help=", ".join(FILES))
    arguments.add_argument("--bits", type=int, nargs="*", default=BITS, help="of rounded weights")
    arguments.add_argument("--qp", type=int, nargs="*", default=QP, help="quantisation parameters of NNCodec")
    arguments.add_argument("--distil-bits", type=int, nargs="*", default=DISTILLED_BITS, help="of distilled weights")
    arguments.add_argument("--distil-steps", type=int, nargs="*", default=DISTILLATION_STEPS, help="a row for each number")
    arguments.add_argument("--learning-rate", type=float, default=LEARNING_RATE, help="peak of the distillation's schedule")
    options = arguments.parse_args()
    if options.quick:
        options.network, options.bits, options.qp = options.network[:1], QUICK_BITS, QUICK_QP
        options.distil_bits, options.distil_steps = DISTILLED_BITS[:1], DISTILLATION_STEPS[:1]
    if options.qp:
        nncodec.load_core()
    torch.set_num_threads(options.threads)
    test = read_images(sorted(options.images.glob("cifar10-test.npz")))
    images = read_images(sorted(options.images.glob("cifar10-train-*.npz")))
    rows: list[Row] = []
    for architecture in options.network:
        subject = prepare(architecture, load(options.checkpoints / FILES[architecture]), images, test, options.seed)
        for bits in options.bits:
            rows.append(rounded(subject, bits))
            progress.print(rows[-1])
        for qp in options.qp:
            rows.append(coded(subject, qp))
            progress.print(rows[-1])
        for bits in options.distil_bits:
            for steps in options.distil_steps:
                rows.append(distilled(subject, bits, steps, options.learning_rate, options.seed))
                progress.print(rows[-1])
    show(rows, "The network's own weights, quantised; accuracy in percent", options)


def prepare(architecture: str, state_dict: StateDict, images: Images, test: Images, seed: int) -> Subject:
    """Splits the images as a job of the same seed does."""
    network = build(architecture, state_dict)
    count = min(MAX_HELD_OUT_IMAGES, max(1, round(HELD_OUT * len(images))))
    source, held_out = images.split(count, generator(seed, "held out"), augment=True)
    judge = Evaluator(network, HeldOutSet.of(held_out))
    return Subject(architecture, state_dict, network, accuracy(network, test), source, judge, test)


def rounded(subject: Subject, bits: int) -> Row:
    started = time.monotonic()
    weights = {layer.name: Quantised.nearest(subject.state_dict[layer.name], bits) for layer in subject.layers}
    return quantised_row(subject, "rounding", f"{bits} bits", weights, bits, time.monotonic() - started)


def distilled(subject: Subject, bits: int, steps: int, learning_rate: float, seed: int) -> Row:
    started = time.monotonic()
    weights = {layer.name: subject.state_dict[layer.name] for layer in subject.layers}
    best = distil(
        subject.network,
        weights,
        bits,
        subject.source,
        subject.judge,
        steps=steps,
        learning_rate=learning_rate,
        seed=seed,
    )
    return quantised_row(subject, "distillation", f"{bits} bits, {steps} steps", best, bits, time.monotonic() - started)


def quantised_row(subject: Subject, method: str, setting: str, weights: dict[str, Quantised], bits: int, seconds: float) -> Row:
    content, sizes = quantised.write(weights, subject.state_dict, bits)
    nbytes: dict[str, int | None] = {
        "file": len(content),
        "artefact": sizes.coded,
        "with kept": sizes.coded + sizes.kept,
    }
    return subject.row(method, setting, nbytes, seconds, quantised.read(content))


def coded(subject: Subject, qp: int) -> Row:
    started = time.monotonic()
    bitstream = nncodec.encode(subject.state_dict, qp)
    seconds = time.monotonic() - started
    alone = nncodec.encode({layer.name: subject.state_dict[layer.name] for layer in subject.layers}, qp)
    nbytes: dict[str, int | None] = {"file": len(bitstream), "artefact": len(alone), "with kept": None}
    return subject.row("NNCodec", f"qp {qp}", nbytes, seconds, nncodec.decode(bitstream, subject.state_dict))


if __name__ == "__main__":
    main()
