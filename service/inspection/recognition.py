"""Recognises files that are no checkpoints, so that a refusal can say what the file is and what to do."""

from collections.abc import Iterable, Iterator

from torch import Tensor

from nern.stubs import Stub
from service.inspection.budget import ADVICE
from service.inspection.refusal import Refusal

# As much of a file as the table below looks at.
START_BYTES = 512

UNPACK = "unpack it, and upload the file inside"
CONVERT = "convert it to a state_dict of torch or to a safetensors file"

FORGOTTEN = "to send a file with curl, write an @ before its name: -F file=@FILE"

# Bytes at an offset of the file: what the file is, and what to do.
MAGIC: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"version https://git-lfs.github.com/spec/", "a pointer of Git LFS, not the file itself",
     "fetch the file with `git lfs pull`, and upload that"),
    (0, b"\x1f\x8b", "compressed with gzip", UNPACK),
    (0, b"BZh", "compressed with bzip2", UNPACK),
    (0, b"\xfd7zXZ\0", "compressed with xz", UNPACK),
    (0, b"\x28\xb5\x2f\xfd", "compressed with zstd", UNPACK),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", UNPACK),
    (0, b"Rar!\x1a\x07", "a RAR archive", UNPACK),
    (257, b"ustar", "a tar archive",
     f"{UNPACK}; a file of torch before 0.1.12 is such an archive: load it with torch, and save its state_dict again"),
    (4, b"TFL3", "a network of TensorFlow Lite", f"{CONVERT}, or upload the network that it was made from"),
    (0, b"GGUF", "a GGUF file", CONVERT),
    (0, b"MATLAB 5.0", "a MATLAB file", CONVERT),
    (0, b"%PDF", "a PDF document", "upload the checkpoint itself"),
    (0, b"\x89PNG", "an image", "upload the checkpoint itself; images belong into a dataset"),
    (0, b"\xff\xd8\xff", "an image", "upload the checkpoint itself; images belong into a dataset"),
)  # fmt: skip

# Web pages that stand in place of a download, and the answers of stores: how their text begins, in lower case.
PAGES = (b"<!doctype html", b"<html", b"<head", b"<!--", b"<?xml", b"<error")


# Methods of a module that people save without calling them.
METHODS = ("state_dict", "parameters", "named_parameters")

# The function in a pickle that stands for a method of an object.
GETATTR = "builtins.getattr"

OPTIMIZER_KEYS = {"state", "param_groups"}


def refuse_unknown(start: bytes) -> Refusal:
    """The refusal of a file that no reader knows, from its first START_BYTES bytes."""
    for offset, magic, kind, advice in MAGIC:
        if start.startswith(magic, offset):
            return Refusal("not-a-checkpoint", f"the file is {kind}; {advice}")
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith(PAGES):
        return Refusal(
            "not-a-checkpoint",
            "the file is a web page, such as an error message in place of a download; download the checkpoint again",
        )
    if text.startswith((b"import ", b"from ")) or b"\nimport " in text or b"\nfrom " in text:
        return Refusal(
            "not-a-checkpoint",
            "the file is source code of Python, which the service does not run; upload the weights of the network, or the file "
            "that nern.export writes",
        )
    if text.startswith((b"{", b"[")):
        return Refusal("not-a-checkpoint", "the file is JSON text, such as an index or a configuration; upload the weights")
    if text.isascii() and len(start) < START_BYTES:
        return Refusal("not-a-checkpoint", f"the file is the text {start[:60].decode(errors='replace')!r}; {FORGOTTEN}")
    return Refusal("not-a-checkpoint", f"the file was written by neither torch.save nor safetensors; {ADVICE}")


def refuse_archive(names: Iterable[str]) -> Refusal:
    """The refusal of a zip archive that no reader knows, from the names of its members."""
    files = [name for name in names if not name.endswith("/")]
    if any(name.rpartition("/")[2] == "saved_model.pb" for name in files):
        return Refusal("not-a-checkpoint", f"the file is a SavedModel of TensorFlow; {CONVERT}")
    if len(files) == 1:
        return Refusal("not-a-checkpoint", f"the file is a zip archive that holds {files[0][:100]!r}; {UNPACK}")
    return Refusal("not-a-checkpoint", f"the file is a zip archive of {len(files)} files, but not one of torch.save; {ADVICE}")


def validate_content(tree: object) -> None:
    """Raises Refusal for content that is not the weights of a network, but something that is easily taken for them."""
    for value in (tree, *(tree.values() if isinstance(tree, dict) else ())):
        method = value.arguments[-1] if isinstance(value, Stub) and value.name == GETATTR and value.arguments else None
        if isinstance(method, str) and method in METHODS:
            raise Refusal(
                "not-a-checkpoint",
                f"the file holds the method `{method}` of a network in place of its result: the parentheses are missing; "
                "save it again with torch.save(model.state_dict(), path)",
            )
    if isinstance(tree, dict) and tree.keys() >= OPTIMIZER_KEYS:
        others = {name: value for name, value in tree.items() if name not in OPTIMIZER_KEYS}
        if not any(_names(others)):
            raise Refusal("not-a-checkpoint", f"the file holds the state of an optimizer, but no network; {ADVICE}")
    names = list(_names(tree))
    adapters = [name for name in names if "lora_" in name.lower()]
    if adapters and all("lora_" in name.lower() or name.endswith("alpha") for name in names):
        raise Refusal(
            "not-a-checkpoint",
            "the file is a LoRA: it holds only small changes to the weights of a network; add them to the network "
            "(model.merge_and_unload() of peft), and save the state_dict of that",
        )


def _names(tree: object, prefix: str = "") -> Iterator[str]:
    """The names of all tensors in dicts of dicts."""
    if isinstance(tree, dict):
        for name, value in tree.items():
            if isinstance(value, Tensor):
                yield f"{prefix}{name}"
            elif isinstance(value, dict):
                yield from _names(value, f"{prefix}{name}."[-200:])
