"""BUILD calls __setstate__, or sets attributes: of an object, of a class, of a module, of a tensor."""

from attacks.attack import Attack, main
from attacks.writing import named, pickled, storage, tensor, text, torch_zip

ATTACKS = [
    Attack(
        "a __setstate__ that the pickle itself has set",
        lambda marker: pickled(
            b"cargparse\nNamespace\n)\x81}" + text("__setstate__") + b"cposix\nsystem\nsb" + text(f"touch {marker}") + b"b"
        ),
    ),
    Attack("attributes of a class", lambda _: pickled(b"ctorch.nn\nModule\n}" + text("__init__") + b"cposix\nabort\nsb")),
    Attack("attributes of a module", lambda _: pickled(
        b"cservice.inspection\nlimits\n}" + text("limit") + b"cposix\nabort\nsb")),
    Attack("slots of an object", lambda _: pickled(b"cargparse\nNamespace\n)\x81N}" + text("x") + b"K\x01s\x86b")),
    Attack(
        "attributes of a tensor",
        lambda _: torch_zip(
            named(tensor(storage("0", 36), 0, (2, 2, 3, 3), (18, 9, 3, 1)) + b"}" + text("data_ptr") + b"cposix\nabort\nsb"),
            _0=bytes(144),
        ),
    ),
    Attack("an array with the state of another", lambda _: pickled(
        b"cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85C\x01btR(K\x01(K\xfftcnumpy\ndtype\n"
        + text("O8") + b"\x85R\x89]tb")),
]  # fmt: skip

if __name__ == "__main__":
    main(ATTACKS)
