"""Tries random files on the readers, guided by their coverage: `python -m attacks.fuzz -runs=100000`.

The options are those of libFuzzer. The first byte of an input says what the rest is: a whole file (among others an ONNX file,
an HDF5 file, a tar archive), the pickle of an archive, a plain pickle, the header of a safetensors file, an array, the graph
of a program of torch.export, or a dataset. The inputs begin with small valid ones. The run ends at the first input for which a
reader imports, opens or runs anything, or needs more than 256 MiB or a minute, or whose facts the service can't describe.
Exceptions that the readers did not foresee are counted: the inspecting process answers that such a file is malformed.
"""

import pickle
import sys
import tempfile
import warnings
from collections import Counter
from io import BytesIO
from pathlib import Path
from typing import Any

import atheris
import h5py
import numpy as np
import torch

READERS = ["service.inspection", "nern.tensorfile", "nern.state_dicts", "nern.layers", "nern.graph", "pyfive"]
with atheris.instrument_imports(include=READERS):
    from attacks.graphs import CONV, MODEL, exported, onnx_file
    from attacks.watched import HARMLESS
    from attacks.writing import named, safetensors, storage, tensor, torch_zip, zipped
    from service.inspection import child
    from service.inspection.constructors import ATTACKS
    from service.inspection.inspect import CheckpointFacts
    from service.inspection.refusal import Refusal
    from service.uploads.intake import Received, describe

OPTIONS = ["-timeout=60", "-rss_limit_mb=4096", "-malloc_limit_mb=256", "-max_len=8192"]
MAX_DATASET_BYTES = 2**24

# The outcomes so far are printed after so many inputs. libFuzzer lets no code run at the end.
REPORTED_INPUTS = 10_000

outcomes: Counter[str] = Counter()
watching = False


class Caught(BaseException):
    """The readers did what they must not do."""


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    """Ends the run at an event that a reader must not cause."""
    global watching
    literal = event == "compile" and arguments[1] == "<unknown>"
    if watching and event not in HARMLESS and not literal:
        watching = False
        raise Caught(f"{event} {arguments}")


def file_of(data: bytes) -> tuple[bytes, bool]:
    """The file that an input stands for, and whether it is a dataset."""
    kind, rest = data[:1], data[1:]
    match kind:
        case b"1":
            return torch_zip(rest, _0=bytes(256), _1=bytes(16)), False
        case b"2":
            return b"\x80\x02" + rest, False
        case b"3":
            return safetensors(rest, bytes(64)), False
        case b"4":
            return b"\x93NUMPY" + rest, False
        case b"5":
            return zipped({"a.npy": b"\x93NUMPY" + rest}), False
        case b"6":
            return zipped({"images.npy": b"\x93NUMPY" + rest}), True
        case b"7":
            return rest, True
        case b"8":
            return zipped({**exported(), MODEL: rest}), False
    return rest, False


def try_one(data: bytes) -> None:
    """Reads one input."""
    global watching
    content, is_dataset = file_of(data)
    watching = True
    try:
        if is_dataset:
            child.inspect_dataset(BytesIO(content), BytesIO(), MAX_DATASET_BYTES, None)
        else:
            facts = child.inspect_checkpoint(BytesIO(content), BytesIO(), len(content))
        outcome = "accepted"
    except Refusal as refusal:
        outcome = refusal.slug
    except Exception as error:  # the inspecting process answers that the file is malformed
        outcome = f"{type(error).__name__} {str(error)[:80]}"
    finally:
        watching = False
    if outcome == "accepted" and not is_dataset:
        # Not within the `try`: the service itself does this.
        describe(Received(Path("upload"), Path(), "upload", len(content), ""), CheckpointFacts.of(facts))
    outcomes[outcome] += 1
    if outcomes.total() % REPORTED_INPUTS == 0:
        print(f"{outcomes.total()} inputs: {outcomes.most_common(30)}", flush=True)


def hdf5_file(**options: Any) -> bytes:
    """A small HDF5 file."""
    buffer = BytesIO()
    with h5py.File(buffer, "w", **options) as file:
        file["layers/conv/vars/0"] = np.zeros((3, 3, 1, 2), np.float32)
        file["optimizer/vars/0"] = np.int32(0)
    return buffer.getvalue()


def seeds() -> list[bytes]:
    """Small valid files of every kind."""
    weight = torch.zeros(1, 1, 3, 3)
    network = {"conv.weight": weight, "conv.bias": torch.zeros(1)}
    files = [BytesIO() for _ in range(4)]
    torch.save(network, files[0])
    torch.save(network, files[1], _use_new_zipfile_serialization=False)
    np.save(files[2], weight.numpy())
    np.savez(files[3], weight=weight.numpy())
    array = files[2].getvalue().removeprefix(b"\x93NUMPY")
    graphs = [onnx_file(CONV), hdf5_file(), hdf5_file(libver="latest")]
    whole = [b"0" + content for content in (*(file.getvalue() for file in files), *graphs)]
    pickles = [b"2" + pickle.dumps(value, protocol)[2:] for protocol in (2, 4, 5) for value in (
        network, {"a": weight.numpy(), "b": np.float32(1)}, torch.nn.Conv2d(1, 1, 3), {"a": [1, {2: (3, None)}, 1.5, b"x"]},
        {"a": weight.to_sparse()})]  # fmt: skip
    archive = b"1" + named(tensor(storage("0", 64), 0, (1, 1, 3, 3), (9, 9, 3, 1)))
    header = b'3{"a":{"dtype":"F32","shape":[1,1,4,4],"data_offsets":[0,64]}}'
    images = BytesIO()
    np.save(images, np.zeros((1, 2, 2, 1), np.uint8))
    dataset = b"6" + images.getvalue().removeprefix(b"\x93NUMPY")
    return [*whole, *pickles, archive, header, b"4" + array, b"5" + array, b"8" + exported()[MODEL], dataset]


def main() -> None:
    """Runs the fuzzer."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    child.warm_up()
    exported()
    ATTACKS.clear()
    sys.addaudithook(watch)
    folder = tempfile.mkdtemp(prefix="nern-fuzz-")
    for number, seed in enumerate(seeds()):
        (Path(folder) / str(number)).write_bytes(seed)
    given = {option.partition("=")[0] for option in sys.argv[1:]}
    defaults = [option for option in OPTIONS if option.partition("=")[0] not in given]
    atheris.Setup([sys.argv[0], *defaults, *sys.argv[1:], folder], try_one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
