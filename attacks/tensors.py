"""Tensors that leave their storage, or that are far larger than the file: offsets, strides, counts, sparse shapes, arrays."""

from attacks.attack import Attack, main
from attacks.writing import call, named, number, pickled, storage, tensor, text, torch_zip

FOUR = bytes(16)


def rebuilt(offset: int, size: tuple[int, ...], stride: tuple[int, ...], numel: int = 4) -> bytes:
    """A file with one tensor over a storage of four numbers."""
    return torch_zip(named(tensor(storage("0", numel), offset, size, stride)), _0=FOUR)


def array(shape: str, data: bytes, dtype: str = "f4") -> bytes:
    """A pickle of an array of numpy, whose shape is given in opcodes."""
    return pickled(
        b"cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85C\x01btR(K\x01" + shape.encode("latin1")
        + b"cnumpy\ndtype\n" + text(dtype) + b"\x85R\x89B" + len(data).to_bytes(4, "little") + data + b"tb"
    )  # fmt: skip


SPARSE = call(
    "torch._utils._rebuild_sparse_tensor",
    b"ctorch.serialization\n_get_layout\n" + text("torch.sparse_coo") + b"\x85R",
    b"(" + tensor(storage("0", 2, "LongStorage"), 0, (2, 1), (1, 1)) + tensor(storage("1", 1), 0, (1,), (1,))
    + b"(" + number(2**40) + number(3) + b"tt",
)  # fmt: skip

ATTACKS = [
    Attack("more numbers than the storage has", lambda _: rebuilt(0, (5,), (1,))),
    Attack("an offset behind the storage", lambda _: rebuilt(4, (1,), (1,))),
    Attack("a negative offset", lambda _: rebuilt(-4, (1,), (1,))),
    Attack("a negative size", lambda _: rebuilt(0, (-1,), (1,))),
    Attack("a negative stride", lambda _: rebuilt(3, (4,), (-1,))),
    Attack("a stride that overflows", lambda _: rebuilt(0, (3,), (2**63 - 1,))),
    Attack("sizes whose product overflows", lambda _: rebuilt(0, (2**32, 2**32), (0, 0))),
    Attack("a stride of 0", lambda _: rebuilt(0, (2**20, 2**10, 3, 3), (0, 0, 0, 0))),
    Attack("a size of 2 ** 200", lambda _: rebuilt(0, (2**200,), (1,))),
    Attack("a thousand dimensions", lambda _: rebuilt(0, (1,) * 1000, (1,) * 1000)),
    Attack("fewer strides than sizes", lambda _: rebuilt(0, (2, 2), (1,))),
    Attack("a storage that announces exabytes", lambda _: rebuilt(0, (4,), (1,), numel=2**62)),
    Attack("a storage that announces a negative number", lambda _: rebuilt(0, (4,), (1,), numel=-1)),
    Attack("a sparse tensor of terabytes", lambda _: torch_zip(named(SPARSE), _0=FOUR, _1=FOUR)),
    Attack("a tensor without values", lambda _: pickled(named(call(
        "torch._utils._rebuild_meta_tensor_no_storage", b"ctorch\nfloat32\n", b"(" + number(2**40) + b"K\x01K\x03K\x03t",
        b"(K\x01K\x01K\x01K\x01t", b"\x89")))),
    Attack("an array that is larger than its data", lambda _: array("(I1000000000000\nt", FOUR)),
    Attack("an array of a negative shape", lambda _: array("(I-4\nt", FOUR)),
    Attack("an array of objects that are numbers", lambda _: array("(K\x02t", FOUR, "O")),
    Attack("a dtype of gigabytes", lambda _: array("(K\x02t", FOUR, "V2000000000")),
    Attack("thousands of views", lambda _: torch_zip(
        b"(" + storage("0", 4) + b"q\x00" + (b"0" + tensor(b"h\x00", 0, (4,), (1,))) * 20_000 + b"t", _0=FOUR)),
]  # fmt: skip

if __name__ == "__main__":
    main(ATTACKS)
