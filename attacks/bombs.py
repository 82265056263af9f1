"""Small files that would need much memory or time: memo, stack, nesting, hashes, integers, copies, cycles."""

from attacks.attack import Attack, main
from attacks.writing import named, pickled, text

MILLIONS = 8_000_000


def many_modules(levels: int) -> bytes:
    """Pushes modules that hold the module of the level below twice, so that the last one has 2 ** levels modules inside."""
    empty = b"}" + text("_parameters") + b"}s" + text("_buffers") + b"}s" + text("_modules")
    one = b"ca\nb\n)\x81" + empty + b"}sb"
    for _ in range(levels):
        one = one + b"q\x000ca\nb\n)\x81" + empty + b"}" + text("a") + b"h\x00s" + text("b") + b"h\x00ssb"
    return one


# Twenty different integers with the same hash, and so on: multiples of the modulus of Python's hashes.
SAME_HASH = b"".join(b"\x8a\x0b" + (number * (2**61 - 1)).to_bytes(11, "little") + b"N" for number in range(1, 60_000))

ATTACKS = [
    Attack("the largest index of the memo", lambda _: pickled(b"Nr\xff\xff\xff\xff")),
    Attack("an index of the memo of a thousand digits", lambda _: pickled(b"Np" + b"9" * 999 + b"\n")),
    Attack("millions of entries of the memo", lambda _: pickled(b"N" + b"\x94" * MILLIONS)),
    Attack("millions of marks", lambda _: pickled(b"(" * MILLIONS)),
    Attack("millions of lists", lambda _: pickled(b"]" * MILLIONS)),
    Attack("a million lists in lists", lambda _: pickled(b"]" * 900_000 + b"a" * 899_999)),
    Attack("a million tuples in tuples", lambda _: pickled(b"N" + b"\x85" * 1_500_000)),
    Attack("a million stubs in stubs", lambda _: pickled(b"N" + b"\x85q\x000ca\nb\nh\x00R" * 100_000)),
    Attack("a billion laughs of lists", lambda _: pickled(b"]" + b"q\x000]h\x00ah\x00a" * 60)),
    Attack("a billion laughs of dicts", lambda _: pickled(b"}" + b"q\x000}K\x01h\x00sK\x02h\x00s" * 30)),
    Attack("a key whose hash takes years", lambda _: pickled(b"}N" + b"2\x86" * 60 + b"Ns")),
    Attack("a set of such keys", lambda _: pickled(b"\x8f(N" + b"2\x86" * 60 + b"\x90")),
    Attack("keys of the same hash", lambda _: pickled(b"}(" + SAME_HASH + b"u")),
    Attack("a billion modules", lambda _: pickled(many_modules(50))),
    Attack("a list of many networks without tensors", lambda _: pickled(
        many_modules(14) + b"q\x000](" + b"h\x00" * 9999 + b"e")),
    Attack("an integer of two gigabytes", lambda _: pickled(b"\x8b\xff\xff\xff\x7f")),
    Attack("an integer of megabytes", lambda _: pickled(b"\x8b\0\0\x40\0" + b"\x77" * 2**22)),
    Attack("a decimal number of megabytes", lambda _: pickled(b"I" + b"9" * 2**22 + b"\n")),
    Attack("bytes of exabytes", lambda _: pickled(b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f")),
    Attack("text of gigabytes", lambda _: pickled(b"X\xff\xff\xff\xff")),
    Attack("a frame of exabytes", lambda _: pickled(b"\x95\xff\xff\xff\xff\xff\xff\xff\x7fN")),
    Attack("copies of a long text", lambda _: pickled(
        b"c_codecs\nencode\nq\x00" + text("x" * 2**20) + b"\x85q\x01](" + b"h\x00h\x01R" * 5000 + b"e")),
    Attack("copies of a long list", lambda _: pickled(
        b"ccollections\nOrderedDict\nq\x00](" + b"K\x01N\x86" * 50_000 + b"e\x85q\x01](" + b"h\x00h\x01R" * 5000 + b"e")),
    Attack("a list that contains itself", lambda _: pickled(named(b"]q\x00h\x00a"))),
    Attack("a module that contains itself", lambda _: pickled(
        b"ca\nb\n)\x81q\x00}" + text("_parameters") + b"}s" + text("_buffers") + b"}s" + text("_modules") + b"}"
        + text("x") + b"h\x00ssb")),
    Attack("paths of megabytes", lambda _: pickled(b"}" + text("x" * 2**20) + b"}(" + b"".join(
        text(str(number)) + b"N" for number in range(100_000)) + b"us")),
]  # fmt: skip

if __name__ == "__main__":
    main(ATTACKS)
