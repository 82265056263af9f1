"""Do trainings give the same bits as another release, on this machine? A digest of what each recipe ends in.

python -m bench.reproducibility [--against FILE.json] [--quick]

Small trainings of every recipe, with few bits, with matched noise and with a search for a size, each in one thread. A digest
covers the rebuilt weights, the predictor and the figures of the evaluations. FILE.json is what another release printed with
--json, on the same kind of processor and with the same torch. The command fails if a digest differs.
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import torch

from bench.tables import Row, parser, progress, show
from nern import artefact
from nern.architectures.cifar import ResNet
from nern.artefact import Artefact
from nern.images import Images, Noise
from nern.layers import StateDict
from nern.network import Network
from nern.request import read_request
from nern.training import Evaluation, train

ARCHITECTURE = "cifar/resnet8"

SHORT: dict[str, Any] = {"hidden": 8, "steps": 16, "reconstruction_steps": 10, "image_batch": 4, "kernel_batch": 3000}

MATCHED = Noise("matched", (3, 8, 8))
FEW: dict[str, Any] = {"synthesis_steps": 2, "synthesised_images": 1}


def images() -> Images:
    """Random images with random labels."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (40, 8, 8, 3), dtype=torch.uint8, generator=generator)
    return Images(pixels, torch.randint(0, 10, (40,), generator=generator), (0.5,) * 3, (0.25,) * 3)


IMAGES = images()

CASES: dict[str, tuple[dict[str, Any], Images | Noise | None]] = {
    "decoupled": (SHORT, IMAGES),
    "decoupled, defaults": ({"steps": 30}, IMAGES),
    "decoupled, feature maps": (SHORT | {"feature_map_weight": 0.1}, IMAGES),
    "decoupled, 4 bits, sparse": (SHORT | {"bits": 4, "sparsity": 0.3, "compression_steps": 5}, IMAGES),
    "decoupled, 8 bits": ({"steps": 30, "bits": 8}, IMAGES),
    "decoupled, matched noise": (SHORT | {"synthesis_steps": 3, "synthesised_images": 130}, MATCHED),
    "decoupled, matched noise, 4 bits": (SHORT | FEW | {"bits": 4, "compression_steps": 3}, MATCHED),
    "decoupled, uniform noise": (SHORT, Noise("uniform", (3, 8, 8))),
    "decoupled, no data, 4 bits": ({"steps": 20, "bits": 4}, None),
    "decoupled, in-filter, cropped": (
        SHORT | {"permutation": "in-filter", "small_kernels": "cropped", "path": "nearest", "seed": 3},
        IMAGES,
    ),
    "regularised": (SHORT | {"recipe": "regularised", "smoothing_steps": 4}, IMAGES),
    "regularised, permuted, 4 bits": (
        SHORT
        | {
            "recipe": "regularised",
            "smoothing_steps": 4,
            "permutation": "cross-filter",
            "bits": 4,
            "compression_steps": 3,
        },
        IMAGES,
    ),
    "regularised, matched noise": (SHORT | FEW | {"recipe": "regularised", "smoothing_steps": 3}, MATCHED),
    "paper": (SHORT | {"recipe": "paper", "reconstruction_steps": None}, IMAGES),
    "paper, warm-up": (SHORT | {"recipe": "paper", "feature_map_weight": 0.5, "logit_weight": 0.25}, IMAGES),
    "paper, no data": ({"recipe": "paper", "hidden": 8, "steps": 12}, None),
    "search": ({"target": {"drop": 50.0}, "steps": 6, "image_batch": 4}, IMAGES),
}


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--against", type=Path, metavar="FILE.json", help="what another release printed with --json")
    options = arguments.parse_args()
    options.threads = 1
    torch.set_num_threads(options.threads)
    others = {row["case"]: row["digest"] for row in json.loads(options.against.read_text())["rows"]} if options.against else {}
    rows: list[Row] = []
    for name, (given, data) in list(CASES.items())[:: 3 if options.quick else 1]:
        found = digest(given, data)
        same = None if name not in others else "yes" if others[name] == found else "NO"
        rows.append({"case": name, "digest": found, "same bits": same})
        progress.print(*rows[-1].values())
    show(rows, "Digests of trainings", options)
    sys.exit(any(row["same bits"] == "NO" for row in rows))


def digest(given: dict[str, Any], data: Images | Noise | None) -> str:
    """What one training ends in, as 16 hexadecimal digits."""
    torch.manual_seed(0)
    state_dict: StateDict = ResNet(8).state_dict()
    trained = train(Network(state_dict, ARCHITECTURE), read_request(given), data=data)
    pieces, _ = artefact.write(trained.representation, state_dict)
    content = b"".join(pieces)
    stored = Artefact(lambda start, stop: content[start:stop])
    hash = hashlib.sha256()
    for name, tensor in stored.state_dict().items():
        hash.update(name.encode())
        hash.update(tensor.numpy().tobytes())
    for tensor in stored.representation.predictor.state_dict().values():
        hash.update(tensor.numpy().tobytes())
    for evaluation in (trained.best, trained.last):
        hash.update(figures(evaluation).encode())
    return hash.hexdigest()[:16]


def figures(evaluation: Evaluation) -> str:
    """All numbers of an evaluation, exactly."""
    comparison = evaluation.comparison
    compared = comparison and (comparison.agreement, comparison.divergence, comparison.accuracy)
    return repr((evaluation.step, evaluation.relative_error, compared, evaluation.compressed))


if __name__ == "__main__":
    main()
