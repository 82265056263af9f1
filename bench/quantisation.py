"""What would plain rounding give at the same bytes? The network's own weights, in few bits, beside what its predictors take.

python -m bench.quantisation --checkpoints FOLDER --images FOLDER [--quick]

Files are those of bench.fidelity, and so are the columns. Every filter of every convolution has the step that rounds it with
the least squared error; the codes are Huffman coded as a predictor's are. Nothing is trained.
"""

from pathlib import Path

import torch

from bench.fidelity import FILES, accuracy, load, read_images
from bench.tables import Row, parser, progress, show
from nern import coding, tensorfile
from nern.architectures import build
from nern.images import Images
from nern.layers import StateDict, find_layers
from nern.quantisation import best_scales, max_code

BITS = (8, 7, 6, 5, 4, 3)


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--checkpoints", type=Path, required=True)
    arguments.add_argument("--images", type=Path, required=True)
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    test = read_images(sorted(options.images.glob("cifar10-test.npz")))
    rows: list[Row] = []
    for architecture, name in list(FILES.items())[: 1 if options.quick else None]:
        state_dict = load(options.checkpoints / name)
        original = accuracy(build(architecture, state_dict), test)
        for bits in BITS:
            measured = measure(architecture, state_dict, bits, test)
            drop = original - measured["rounded"]
            rows.append({"network": architecture, "bits": bits, **measured, "original": original, "drop": drop})
            progress.print(rows[-1])
    show(rows, "Weights rounded to few bits, Huffman coded; accuracy in percent", options)


def measure(architecture: str, state_dict: StateDict, bits: int, test: Images) -> Row:
    """Rounds, counts and tests."""
    layers = find_layers(state_dict)
    rounded, size = dict(state_dict), 0
    for layer in layers:
        filters = state_dict[layer.name].flatten(1)
        steps, most = best_scales(filters, bits), max_code(bits)
        codes = (filters / steps[:, None]).round().clamp(-most, most)
        size += coding.encode(codes.to(torch.int16), bits).numel() + 2 * len(steps)
        rounded[layer.name] = (codes * steps[:, None]).view(layer.shape)
    represented = sum(4 * layer.weights for layer in layers)
    names = {layer.name for layer in layers}
    kept = sum(tensorfile.size_of(one.dtype, one.shape) for name, one in state_dict.items() if name not in names)
    return {
        "coded": size / represented,
        "with kept": (size + kept) / represented,
        "rounded": accuracy(build(architecture, rounded), test),
    }


if __name__ == "__main__":
    main()
