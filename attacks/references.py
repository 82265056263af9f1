"""Persistent ids, and changes of objects that exist: lists and dicts of modules of the service itself."""

from attacks.attack import Attack, main
from attacks.writing import call, named, number, pickled, storage, tensor, text, torch_zip

WHOLE = tensor(storage("0", 36), 0, (2, 2, 3, 3), (18, 9, 3, 1))

ATTACKS = [
    Attack("a persistent id of text", lambda _: pickled(b"Pstorage\n")),
    Attack("a persistent id of an unknown kind", lambda _: torch_zip(b"(" + text("file") + text("/etc/passwd") + b"tQ")),
    Attack("a storage whose class is a function", lambda _: torch_zip(
        named(tensor(storage("0", 36, "system"), 0, (2, 2, 3, 3), (18, 9, 3, 1))), _0=bytes(144))),
    Attack("a storage with a path as its name", lambda _: torch_zip(
        named(tensor(storage("../../etc/passwd", 36), 0, (36,), (1,))))),
    Attack("a storage on a device that runs code", lambda _: torch_zip(
        b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("privateuseone:0") + number(36) + b"tQ",
        _0=bytes(144))),
    Attack("elements of sys.path", lambda marker: pickled(b"csys\npath\n" + text(str(marker)) + b"a")),
    Attack("items of builtins", lambda _: pickled(b"cbuiltins\n__dict__\n" + text("len") + b"cposix\nabort\ns")),
    Attack("safe globals of torch", lambda _: pickled(
        call("torch.serialization.add_safe_globals", b"](cposix\nsystem\ne") + b"0N")),
    Attack("elements of a call's result", lambda _: pickled(call("sys.__getattribute__", text("path")) + text("x") + b"a")),
    Attack("a tensor with a hook", lambda _: torch_zip(
        named(WHOLE[: -len(b"}tR")] + b"}K\x01cposix\nsystem\nstR"), _0=bytes(144))),
    Attack("a tensor of a class of its own", lambda _: torch_zip(
        named(call("torch._tensor._rebuild_from_type_v2", b"cposix\nsystem\n", b"cposix\nsystem\n", b"(t", b"}")))),
]  # fmt: skip

if __name__ == "__main__":
    main(ATTACKS)
