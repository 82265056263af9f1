"""A machine for pickles that can make nothing but data.

A pickle is a program for a machine with a stack. Python's own machine calls whatever the program names. This machine has the
same opcodes, but a name only becomes a `Name`, which is text. Where the program calls something, the machine asks `construct`,
which has a table of what it makes for a few names, and makes a `Stub` for every other name. So no name of a file ever reaches
an import or an attribute of a Python object, and no method of an object that a file describes is called.

Neither of the two classes of the standard library is suitable as a base. Both call methods of objects (BUILD, APPENDS,
ADDITEMS) and read Python's registry of extensions. The one in C can't count operations, and reserves memory for the largest
index of its memo. The one in Python is private, and half of its opcodes would have to be replaced.
"""

import codecs
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from nern.stubs import Stub
from service.inspection.budget import ADVICE, Budget
from service.inspection.refusal import Refusal

Construct = Callable[[str, tuple[object, ...]], object]
Persistent = Callable[[object], object]

HIGHEST_PROTOCOL = 5

# The longest line that holds a number or a name, and the longest binary integer. Real ones are far shorter.
MAX_LINE_BYTES = 1000
MAX_INTEGER_BYTES = 1000

# Integers up to this size are their own hashes. Larger ones could be chosen so that their hashes are the same.
MAX_KEY = 2**60

# The names of modules in Python 2, which older protocols use.
MODULES = {"__builtin__": "builtins", "copy_reg": "copyreg"}


@dataclass(frozen=True, slots=True)
class Name:
    """The qualified name of a class or a function in a pickle, and nothing but that name."""

    text: str


class Buildable:
    """A value of `construct` that takes a state from the opcode BUILD."""

    def build(self, state: object) -> None:
        """Takes the state. Raises ValueError or TypeError if the state is malformed."""
        raise NotImplementedError


class Unpickler:
    """Reads pickles from `file`, which ends at offset `end`.

    `construct` makes the result of a call from the qualified name and the arguments. It raises ValueError or TypeError for
    malformed arguments. `persistent` makes the object that a persistent id stands for, or raises Refusal.
    """

    def __init__(self, file: BinaryIO, end: int, budget: Budget, construct: Construct, persistent: Persistent) -> None:
        self._file = file
        self._end = end
        self._budget = budget
        self._construct = construct
        self._persistent = persistent
        self._stack: list[object] = []
        self._below: list[list[object]] = []
        self._memo: dict[int, object] = {}

    def load(self) -> object:
        """The value of the pickle that begins at the position of the file. The position is then behind the pickle.

        The value consists of scalars, dicts, lists, tuples, names, stubs and what `construct` and `persistent` make. It may
        contain itself. Raises Refusal.
        """
        self._stack, self._below, self._memo = [], [], {}
        read, budget = self._file.read, self._budget
        while True:
            budget.spend(1)
            code = read(1)
            if code == b".":
                return self._pop()
            operation = OPERATIONS.get(code)
            if operation is None:
                raise self._damaged() if code else _cut_off()
            try:
                operation(self)
            except (ValueError, TypeError, IndexError, KeyError, OverflowError) as error:
                raise self._damaged() from error

    # Reading

    def _bytes(self, count: int) -> bytes:
        # The length is compared with what is there before memory is allocated.
        if count > 256 and count > self._end - self._file.tell():
            raise _cut_off()
        data = self._file.read(count)
        if len(data) < count:
            raise _cut_off()
        return data

    def _unsigned(self, nbytes: int) -> int:
        return int.from_bytes(self._bytes(nbytes), "little")

    def _line(self, limit: int = MAX_LINE_BYTES) -> bytes:
        line = self._file.readline(limit)
        if not line.endswith(b"\n"):
            raise self._damaged() if len(line) == limit else _cut_off()
        return line[:-1]

    def _damaged(self) -> Refusal:
        return Refusal(
            "not-a-checkpoint", f"the file looks like a pickle, but is damaged before byte {self._file.tell()}; {ADVICE}"
        )

    # Stack and memo

    def _push(self, value: object) -> None:
        self._stack.append(value)

    def _pop(self) -> object:
        if not self._stack:
            raise self._damaged()
        return self._stack.pop()

    def _mark(self) -> None:
        self._below.append(self._stack)
        self._stack = []

    def _pop_mark(self) -> list[object]:
        values = self._stack
        self._stack = self._below.pop()
        return values

    def _drop_mark(self) -> None:
        self._pop_mark()

    def _pop_any(self) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._pop_mark()

    def _put(self, index: int) -> None:
        if index < 0:
            raise ValueError
        self._memo[index] = self._stack[-1]

    # Calls

    def _global(self, module: object, name: object) -> Name:
        if not isinstance(module, str) or not isinstance(name, str) or len(module) + len(name) > MAX_LINE_BYTES:
            raise TypeError
        return Name(f"{MODULES.get(module, module)}.{name}")

    def _call(self, called: object, arguments: object) -> object:
        if isinstance(arguments, list):
            arguments = tuple(arguments)
        if not isinstance(arguments, tuple):
            raise TypeError
        if isinstance(called, Name):
            return self._construct(called.text, arguments)
        if isinstance(called, Stub):
            return Stub(called.name, (called, *arguments))
        raise Refusal("forbidden-pickle", f"the pickle in the file calls a value that is no function; {ADVICE}")

    def _reduce(self) -> None:
        arguments = self._pop()
        self._stack[-1] = self._call(self._stack[-1], arguments)

    def _newobj_ex(self) -> None:
        keywords, arguments = self._pop(), self._pop()
        if not isinstance(arguments, tuple) or not isinstance(keywords, dict):
            raise TypeError
        self._stack[-1] = self._call(self._stack[-1], (*arguments, keywords) if keywords else arguments)

    def _inst(self) -> None:
        name = self._global(self._line().decode(), self._line().decode())
        arguments = self._pop_mark()
        self._push(self._call(name, arguments))

    def _obj(self) -> None:
        called, *arguments = self._pop_mark()
        self._push(self._call(called, arguments))

    def _build(self) -> None:
        state, target = self._pop(), self._stack[-1]
        if isinstance(target, Stub):
            target.state = state
        elif isinstance(target, Buildable):
            target.build(state)
        # Attributes of dicts and tensors, such as the `_metadata` of a state_dict, are not needed.

    # Containers

    def _append(self, values: list[object]) -> None:
        target = self._stack[-1]
        if isinstance(target, Stub):
            target = target.elements
        if not isinstance(target, list):
            raise Refusal("forbidden-pickle", f"the pickle in the file appends to a value that is no list; {ADVICE}")
        target.extend(values)

    def _set_items(self, pairs: list[object]) -> None:
        target = self._stack[-1]
        if isinstance(target, Stub):
            target = target.items
        if not isinstance(target, dict):
            raise Refusal("forbidden-pickle", f"the pickle in the file sets items of a value that is no dict; {ADVICE}")
        fill(target, pairs)

    def _dict(self) -> None:
        made: dict[object, object] = {}
        fill(made, self._pop_mark())
        self._push(made)

    def _tuple(self, count: int) -> None:
        values = tuple(self._stack[-count:])
        if len(values) < count:
            raise self._damaged()
        self._stack[-count:] = [values]

    # Scalars

    def _integer(self, nbytes: int) -> None:
        if not 0 <= nbytes <= MAX_INTEGER_BYTES:
            raise Refusal("too-demanding", f"an integer in the file has more than {MAX_INTEGER_BYTES} bytes; {ADVICE}")
        self._push(int.from_bytes(self._bytes(nbytes), "little", signed=True))

    def _int_line(self) -> None:
        line = self._line()
        self._push({b"00": False, b"01": True}.get(line) if line in (b"00", b"01") else int(line))

    def _long_line(self) -> None:
        self._push(int(self._line().rstrip(b"L")))

    def _text(self, count: int) -> None:
        self._push(str(self._bytes(count), "utf-8", "surrogatepass"))

    def _python_2_string(self, data: bytes) -> None:
        # Strings of Python 2 hold text or bytes.
        try:
            self._push(data.decode())
        except UnicodeDecodeError:
            self._push(data)

    def _string_line(self) -> None:
        line = self._line(self._end)
        if len(line) < 2 or line[0] != line[-1] or line[:1] not in (b'"', b"'"):
            raise ValueError
        self._python_2_string(codecs.escape_decode(line[1:-1])[0])

    # Opcodes that can't be data

    def _extension(self) -> None:
        raise Refusal("forbidden-pickle", f"the pickle in the file uses the extension registry of copyreg; {ADVICE}")

    def _buffer(self) -> None:
        raise Refusal("forbidden-pickle", f"the pickle in the file refers to buffers that are not in the file; {ADVICE}")

    def _proto(self) -> None:
        if self._unsigned(1) > HIGHEST_PROTOCOL:
            raise ValueError

    def _frame(self) -> None:
        if self._unsigned(8) > self._end - self._file.tell():
            raise _cut_off()


def key(value: object) -> object:
    """A value as the key of a dict.

    Text, small numbers and bytes stay. Anything else becomes a stub, whose hash does not depend on the file: hashing tuples in
    tuples can take exponential time, and other hashes can be made to collide.
    """
    if value is None or type(value) in (str, bytes, bool, float):
        return value
    if type(value) is int and abs(value) < MAX_KEY:
        return value
    return Stub("key", (value,))


def fill(target: dict[object, object], pairs: list[object]) -> None:
    """Sets items of a dict: keys and values take turns in `pairs`. Raises ValueError for an odd number."""
    if len(pairs) % 2:
        raise ValueError("a key has no value")
    for name, value in zip(pairs[::2], pairs[1::2], strict=True):
        target[key(name)] = value


def _cut_off() -> Refusal:
    return Refusal("truncated-file", "the file ends inside a pickle; upload the file again")


Operation = Callable[[Unpickler], None]


def _pushes(value: object) -> Operation:
    return lambda machine: machine._push(value)


def _new(make: Callable[[], object]) -> Operation:
    return lambda machine: machine._push(make())


def _unpacks(format: str) -> Operation:
    size = struct.calcsize(format)
    return lambda machine: machine._push(struct.unpack(format, machine._bytes(size))[0])


# Every opcode but STOP.
OPERATIONS: dict[bytes, Operation] = {
    b"I": Unpickler._int_line,
    b"J": _unpacks("<i"),
    b"K": _unpacks("<B"),
    b"M": _unpacks("<H"),
    b"L": Unpickler._long_line,
    b"\x8a": lambda machine: machine._integer(machine._unsigned(1)),
    b"\x8b": lambda machine: machine._integer(machine._unsigned(4)),
    b"S": Unpickler._string_line,
    b"T": lambda machine: machine._python_2_string(machine._bytes(machine._unsigned(4))),
    b"U": lambda machine: machine._python_2_string(machine._bytes(machine._unsigned(1))),
    b"B": lambda machine: machine._push(machine._bytes(machine._unsigned(4))),
    b"C": lambda machine: machine._push(machine._bytes(machine._unsigned(1))),
    b"\x8e": lambda machine: machine._push(machine._bytes(machine._unsigned(8))),
    b"\x96": lambda machine: machine._push(machine._bytes(machine._unsigned(8))),
    b"\x97": Unpickler._buffer,
    b"\x98": Unpickler._buffer,
    b"N": _pushes(None),
    b"\x88": _pushes(True),
    b"\x89": _pushes(False),
    b"V": lambda machine: machine._push(codecs.raw_unicode_escape_decode(machine._line(machine._end))[0]),
    b"\x8c": lambda machine: machine._text(machine._unsigned(1)),
    b"X": lambda machine: machine._text(machine._unsigned(4)),
    b"\x8d": lambda machine: machine._text(machine._unsigned(8)),
    b"F": lambda machine: machine._push(float(machine._line())),
    b"G": _unpacks(">d"),
    b"]": _new(list),
    b"a": lambda machine: machine._append([machine._pop()]),
    b"e": lambda machine: machine._append(machine._pop_mark()),
    b"l": lambda machine: machine._push(machine._pop_mark()),
    b")": _pushes(()),
    b"t": lambda machine: machine._push(tuple(machine._pop_mark())),
    b"\x85": lambda machine: machine._tuple(1),
    b"\x86": lambda machine: machine._tuple(2),
    b"\x87": lambda machine: machine._tuple(3),
    b"}": _new(dict),
    b"d": Unpickler._dict,
    b"s": lambda machine: machine._set_items([machine._pop(), machine._pop()][::-1]),
    b"u": lambda machine: machine._set_items(machine._pop_mark()),
    # Sets are lists here, so that their elements need no hash.
    b"\x8f": _new(list),
    b"\x90": lambda machine: machine._append(machine._pop_mark()),
    b"\x91": lambda machine: machine._push(machine._pop_mark()),
    b"0": Unpickler._pop_any,
    b"2": lambda machine: machine._push(machine._stack[-1]),
    b"(": Unpickler._mark,
    b"1": Unpickler._drop_mark,
    b"g": lambda machine: machine._push(machine._memo[int(machine._line())]),
    b"h": lambda machine: machine._push(machine._memo[machine._unsigned(1)]),
    b"j": lambda machine: machine._push(machine._memo[machine._unsigned(4)]),
    b"p": lambda machine: machine._put(int(machine._line())),
    b"q": lambda machine: machine._put(machine._unsigned(1)),
    b"r": lambda machine: machine._put(machine._unsigned(4)),
    b"\x94": lambda machine: machine._put(len(machine._memo)),
    b"\x82": Unpickler._extension,
    b"\x83": Unpickler._extension,
    b"\x84": Unpickler._extension,
    b"c": lambda machine: machine._push(machine._global(machine._line().decode(), machine._line().decode())),
    b"\x93": lambda machine: machine._push(machine._global(*[machine._pop(), machine._pop()][::-1])),
    b"R": Unpickler._reduce,
    b"b": Unpickler._build,
    b"i": Unpickler._inst,
    b"o": Unpickler._obj,
    b"\x81": Unpickler._reduce,
    b"\x92": Unpickler._newobj_ex,
    b"\x80": Unpickler._proto,
    b"\x95": Unpickler._frame,
    b"P": lambda machine: machine._push(machine._persistent(machine._line().decode())),
    b"Q": lambda machine: machine._push(machine._persistent(machine._pop())),
}
