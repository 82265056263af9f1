"""The machine that reads pickles: every opcode, what it makes of data, and what it refuses."""

import builtins
import pickle
import pickletools
import sys
from collections import OrderedDict
from io import BytesIO
from typing import Any

import pytest

from nern.stubs import Stub
from service.inspection.budget import MAX_OPERATIONS, Budget
from service.inspection.constructors import Constructors
from service.inspection.refusal import Refusal
from service.inspection.unpickling import OPERATIONS, Name, Unpickler


def load(content: bytes) -> Any:
    """The value of a pickle. A persistent id stands for a list with this id; storages can't be read."""
    budget = Budget(len(content))
    constructors = Constructors(budget, lambda _: pytest.fail("a storage was read"))
    return Unpickler(BytesIO(content), len(content), budget, constructors, lambda identifier: ["persistent", identifier]).load()


def plain(value: Any) -> Any:
    """A value in which stubs are dicts, so that values can be compared."""
    if isinstance(value, Stub):
        parts = {"arguments": value.arguments, "state": value.state, "items": value.items, "elements": value.elements}
        return {"stub": value.name} | {name: plain(part) for name, part in parts.items() if part not in ((), None, {}, [])}
    if isinstance(value, dict):
        return {plain(name) if not isinstance(name, Stub) else name.name: plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(plain(part) for part in value)
    return value


EIGHT = b"\x01" + bytes(7)
A_B = b"ca\nb\n"

# A pickle for each opcode, and its value, or the slug of its refusal.
SAMPLES: dict[str, tuple[bytes, Any]] = {
    "INT": (b"(I12\nI01\nI00\nt.", (12, True, False)),
    "BININT": (b"J\xff\xff\xff\xff.", -1),
    "BININT1": (b"K\x07.", 7),
    "BININT2": (b"M\x01\x02.", 513),
    "LONG": (b"L-12L\n.", -12),
    "LONG1": (b"\x8a\x02\xff\x00.", 255),
    "LONG4": (b"\x8b\x01\0\0\0\xff.", -1),
    "STRING": (b"S'a\\n'\n.", "a\n"),
    "BINSTRING": (b"T\x01\0\0\0a.", "a"),
    "SHORT_BINSTRING": (b"U\x01\xff.", b"\xff"),
    "BINBYTES": (b"B\x01\0\0\0a.", b"a"),
    "SHORT_BINBYTES": (b"C\x01a.", b"a"),
    "BINBYTES8": (b"\x8e" + EIGHT + b"a.", b"a"),
    "BYTEARRAY8": (b"\x96" + EIGHT + b"a.", b"a"),
    "NEXT_BUFFER": (b"\x97.", "forbidden-pickle"),
    "READONLY_BUFFER": (b"N\x98.", "forbidden-pickle"),
    "NONE": (b"N.", None),
    "NEWTRUE": (b"\x88.", True),
    "NEWFALSE": (b"\x89.", False),
    "UNICODE": (b"V\\u00e9\n.", "é"),
    "SHORT_BINUNICODE": (b"\x8c\x01a.", "a"),
    "BINUNICODE": (b"X\x02\0\0\0\xc3\xa9.", "é"),
    "BINUNICODE8": (b"\x8d" + EIGHT + b"a.", "a"),
    "FLOAT": (b"F1.5\n.", 1.5),
    "BINFLOAT": (b"G\x3f\xf8\0\0\0\0\0\0.", 1.5),
    "EMPTY_LIST": (b"].", []),
    "APPEND": (b"]Na.", [None]),
    "APPENDS": (b"](NK\x01e.", [None, 1]),
    "LIST": (b"(NK\x01l.", [None, 1]),
    "EMPTY_TUPLE": (b").", ()),
    "TUPLE": (b"(NK\x01t.", (None, 1)),
    "TUPLE1": (b"N\x85.", (None,)),
    "TUPLE2": (b"NK\x01\x86.", (None, 1)),
    "TUPLE3": (b"NK\x01K\x02\x87.", (None, 1, 2)),
    "EMPTY_DICT": (b"}.", {}),
    "DICT": (b"(K\x01Nd.", {1: None}),
    "SETITEM": (b"}K\x01Ns.", {1: None}),
    "SETITEMS": (b"}(K\x01NK\x02Nu.", {1: None, 2: None}),
    "EMPTY_SET": (b"\x8f.", []),
    "ADDITEMS": (b"\x8f(NK\x01\x90.", [None, 1]),
    "FROZENSET": (b"(NK\x01\x91.", [None, 1]),
    "POP": (b"NK\x010.", None),
    "DUP": (b"K\x012\x86.", (1, 1)),
    "MARK": (b"N(0.", None),
    "POP_MARK": (b"N(K\x01K\x021.", None),
    "GET": (b"Np0\nK\x01g0\n\x86\x86.", (None, (1, None))),
    "BINGET": (b"Nq\x000h\x00.", None),
    "LONG_BINGET": (b"Nq\x000j\0\0\0\0.", None),
    "PUT": (b"Np7\n0h\x07.", None),
    "BINPUT": (b"Nq\x070g7\n.", None),
    "LONG_BINPUT": (b"Nr\xff\xff\xff\xff0j\xff\xff\xff\xff.", None),
    "MEMOIZE": (b"N\x94K\x01\x94h\x00\x87.", (None, 1, None)),
    "EXT1": (b"\x82\x01.", "forbidden-pickle"),
    "EXT2": (b"\x83\x01\0.", "forbidden-pickle"),
    "EXT4": (b"\x84\x01\0\0\0.", "forbidden-pickle"),
    "GLOBAL": (b"cos\nsystem\n.", Name("os.system")),
    "STACK_GLOBAL": (b"\x8c\x02os\x8c\x06system\x93.", Name("os.system")),
    "REDUCE": (A_B + b"K\x01\x85R.", {"stub": "a.b", "arguments": (1,)}),
    "BUILD": (A_B + b")R}K\x01Nsb.", {"stub": "a.b", "state": {1: None}}),
    "INST": (b"(K\x01ia\nb\n.", {"stub": "a.b", "arguments": (1,)}),
    "OBJ": (b"(" + A_B + b"K\x01o.", {"stub": "a.b", "arguments": (1,)}),
    "NEWOBJ": (A_B + b"K\x01\x85\x81.", {"stub": "a.b", "arguments": (1,)}),
    "NEWOBJ_EX": (A_B + b"K\x01\x85}\x8c\x01xNs\x92.", {"stub": "a.b", "arguments": (1, {"x": None})}),
    "PROTO": (b"\x80\x05N.", None),
    "STOP": (b"N.", None),
    "FRAME": (b"\x95\x02\0\0\0\0\0\0\0N.", None),
    "PERSID": (b"Px\n.", ["persistent", "x"]),
    "BINPERSID": (b"K\x01Q.", ["persistent", 1]),
}


def test_there_is_a_sample_of_every_opcode_and_the_machine_knows_no_other() -> None:
    known = {opcode.code.encode("latin1"): opcode.name for opcode in pickletools.opcodes}
    assert SAMPLES.keys() == set(known.values())
    assert OPERATIONS.keys() == known.keys() - {b"."}


@pytest.mark.parametrize("opcode", SAMPLES)
def test_every_opcode_does_what_it_should(opcode: str) -> None:
    content, expected = SAMPLES[opcode]
    if expected == "forbidden-pickle":
        with pytest.raises(Refusal) as refused:
            load(content)
        assert refused.value.slug == expected
    else:
        assert plain(load(content)) == expected


def test_no_opcode_needs_a_module_or_makes_an_object_of_a_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an opcode makes of names that exist is the same as what it makes of names that do not."""
    monkeypatch.setattr(builtins, "__import__", lambda name, *_: pytest.fail(f"{name} was imported"))
    for opcode, (content, expected) in SAMPLES.items():
        if expected != "forbidden-pickle":
            for value in _parts(load(content.replace(A_B, b"ccsv\nSniffer\n"))):
                assert type(value) in {Stub, Name, dict, list, tuple, int, float, str, bytes, bool, type(None)}, opcode
    monkeypatch.undo()
    assert "this" not in sys.modules
    load(b"cthis\ns\n.")
    assert "this" not in sys.modules


def _parts(value: Any) -> list[Any]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [value, *(part for child in inner for part in _parts(child))]


DATA: list[Any] = [
    None,
    [True, False, 0, -1, 255, 65536, 2**31, -(2**63), 2**200, 1.5, float("inf")],
    ["", "text", "é\n\\", "\U0001f600", "\ud800", b"", b"\xff\0", "x" * 70000],
    {"a": {"b": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)]}, 2: 2, None: 3, b"k": 4, 1.5: 5, True: 6},
    OrderedDict([("b", 1), ("a", 2)]),
    bytearray(b"abc"),
    [[]] * 3,
]


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("value", DATA, ids=lambda value: type(value).__name__)
def test_data_is_read_as_python_reads_it(value: Any, protocol: int) -> None:
    assert load(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("protocol", range(2, 6))
def test_sets_are_lists(protocol: int) -> None:
    read = load(pickle.dumps([{1, 2}, frozenset({3})], protocol))
    assert [sorted(part) for part in read] == [[1, 2], [3]]


def test_shared_values_stay_shared_and_cycles_are_kept() -> None:
    shared: list[Any] = [1]
    shared.append(shared)
    read = load(pickle.dumps({"a": shared, "b": shared}))
    assert read["a"] is read["b"]
    assert read["a"][1] is read["a"]


def test_the_position_is_behind_the_pickle() -> None:
    file = BytesIO(b"N.K\x05.rest")
    budget = Budget(10)
    machine = Unpickler(file, 10, budget, Constructors(budget, lambda _: None), lambda _: None)
    assert [machine.load(), machine.load()] == [None, 5]
    assert file.read() == b"rest"


REFUSED: list[tuple[str, bytes, str]] = [
    ("cut off", b"\x80\x04](", "truncated-file"),
    ("a text that is longer than the file", b"X\xff\xff\xff\x7fabc.", "truncated-file"),
    ("bytes of exabytes", b"\x8e" + b"\xff" * 8 + b".", "truncated-file"),
    ("a frame of exabytes", b"\x95" + b"\xff" * 8 + b"N.", "truncated-file"),
    ("an unknown opcode", b"\xff.", "not-a-checkpoint"),
    ("an unknown protocol", b"\x80\x06N.", "not-a-checkpoint"),
    ("an empty stack", b".", "not-a-checkpoint"),
    ("no mark", b"Nt.", "not-a-checkpoint"),
    ("a memo without the entry", b"h\x05.", "not-a-checkpoint"),
    ("a negative index of the memo", b"Np-1\n.", "not-a-checkpoint"),
    ("a key without a value", b"}(Nu.", "not-a-checkpoint"),
    ("text that is no UTF-8", b"X\x01\0\0\0\xff.", "not-a-checkpoint"),
    ("a number that is none", b"Ix\n.", "not-a-checkpoint"),
    ("a number of a million digits", b"I" + b"9" * 10**6 + b"\n.", "not-a-checkpoint"),
    ("an integer of a megabyte", b"\x8b\0\0\x10\0" + b"\xff" * 2**20 + b".", "too-demanding"),
    ("a name of a megabyte", b"c" + b"x" * 2**20 + b"\nb\n.", "not-a-checkpoint"),
    ("a call of a number", b"K\x01)R.", "forbidden-pickle"),
    ("a call of a dict", b"})R.", "forbidden-pickle"),
    ("items of a name", b"cbuiltins\n__dict__\nK\x01Ns.", "forbidden-pickle"),
    ("elements of a name", b"csys\npath\nNa.", "forbidden-pickle"),
    ("a million marks", b"(" * (MAX_OPERATIONS + 1), "too-demanding"),
    ("a command", b"cposix\nsystem\nX\x02\0\0\0ls\x85R.", "forbidden-pickle"),
    ("code", b"c__builtin__\neval\nX\x01\0\0\0a\x85R.", "forbidden-pickle"),
]


@pytest.mark.parametrize(("content", "slug"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_what_can_not_be_data_is_refused(content: bytes, slug: str) -> None:
    with pytest.raises(Refusal) as refused:
        load(content)
    assert refused.value.slug == slug, refused.value.detail


def test_keys_whose_hashes_a_file_could_choose_become_stubs() -> None:
    """Such keys can make a dict slow: hashes of nested tuples take long, and those of large integers can be made the same."""
    nested = b"N" + b"2\x86" * 60
    read = load(b"}(" + nested + b"K\x01" + b"\x8a\x09" + bytes(8) + b"\x01" + b"K\x02u.")
    assert [type(name) for name in read] == [Stub, Stub]
    assert list(read.values()) == [1, 2]


@pytest.mark.parametrize("name", [b"collections\nOrderedDict", b"builtins\ndict"])
def test_copies_of_copies_are_limited(name: bytes) -> None:
    pairs = b"](" + b"".join(b"K\x01N\x86" for _ in range(10_000)) + b"e"
    content = b"c" + name + b"\nq\x00" + pairs + b"\x85q\x01](" + b"h\x00h\x01R" * 1000 + b"e."
    with pytest.raises(Refusal) as refused:
        load(content)
    assert refused.value.slug == "too-demanding"


def test_copies_of_text_are_limited() -> None:
    text = b"c_codecs\nencode\nq\x00X\x00\x00\x10\x00" + b"x" * 2**20 + b"\x85q\x01](" + b"h\x00h\x01R" * 1000 + b"e."
    with pytest.raises(Refusal) as refused:
        load(text)
    assert refused.value.slug == "too-demanding"
