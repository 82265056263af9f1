"""Every other opcode that calls something: INST, OBJ, NEWOBJ, NEWOBJ_EX, STACK_GLOBAL, and EXT from the extension registry."""

from pathlib import Path

from attacks.attack import Attack, main
from attacks.writing import pickled, text


def command(marker: Path) -> bytes:
    """Pushes a command."""
    return text(f"touch {marker}")


SYSTEM = b"cposix\nsystem\n"

ATTACKS = [
    Attack("INST", lambda marker: pickled(b"(" + command(marker) + b"iposix\nsystem\n")),
    Attack("OBJ", lambda marker: pickled(b"(" + SYSTEM + command(marker) + b"o")),
    Attack("NEWOBJ", lambda marker: pickled(SYSTEM + command(marker) + b"\x85\x81")),
    Attack("NEWOBJ_EX", lambda marker: pickled(SYSTEM + command(marker) + b"\x85}\x92")),
    Attack("STACK_GLOBAL", lambda marker: pickled(text("os") + text("system") + b"\x93" + command(marker) + b"\x85R")),
    Attack("a module with dots", lambda marker: pickled(b"cos.path\nos.system\n" + command(marker) + b"\x85R")),
    Attack("a name with dots", lambda marker: pickled(
        text("nern") + text("errors.os.system") + b"\x93" + command(marker) + b"\x85R")),
    Attack("EXT1", lambda _: pickled(b"\x82\x01)R")),
    Attack("EXT2", lambda _: pickled(b"\x83\x01\x01)R")),
    Attack("EXT4", lambda _: pickled(b"\x84\x01\0\0\0)R")),
    Attack("the registry itself", lambda marker: pickled(
        b"ccopyreg\nadd_extension\n(" + text("posix") + text("system") + b"K\x01tR0\x82\x01" + command(marker) + b"\x85R")),
]  # fmt: skip

if __name__ == "__main__":
    main(ATTACKS)
