"""Files that are no datasets of ours, called by their name, with what to do instead."""

ARRAYS = "numpy.savez(path, images=…, labels=…)"

# (offset, bytes at this offset, what the file is, what to do)
SIGNATURES = (
    (0, b"\x1f\x8b", "compressed with gzip (perhaps a .tar.gz)", "unpack it, and send the folder as a zip archive"),
    (0, b"BZh", "compressed with bzip2", "unpack it, and send the folder as a zip archive"),
    (0, b"\xfd7zXZ\x00", "compressed with xz", "unpack it, and send the folder as a zip archive"),
    (0, b"\x28\xb5\x2f\xfd", "compressed with zstd", "unpack it, and send the folder as a zip archive"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it, and send the folder as a zip archive"),
    (0, b"Rar!\x1a\x07", "a RAR archive", "unpack it, and send the folder as a zip archive"),
    (257, b"ustar", "a tar archive", "unpack it, and send the folder as a zip archive"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file", f"read it with h5py and write it with {ARRAYS}"),
    (0, b"MATLAB 5.0", "a MATLAB file", f"read it with scipy.io.loadmat and write it with {ARRAYS}"),
    (0, b"PAR1", "a Parquet file", f"read it with pandas and write it with {ARRAYS}"),
    (0, b"ARROW1", "an Arrow file", f"read it with pyarrow and write it with {ARRAYS}"),
    (0, b"\x00\x00\x08", "an IDX file, as MNIST has them", f"read it with torchvision, and write it with {ARRAYS}"),
    (0, b"version https://git-lfs", "a pointer of Git LFS", "fetch the file itself with git lfs pull"),
    (0, b"\x89PNG\r\n\x1a\n", "a single image", "send a zip of folders of images, one for each class"),
    (0, b"\xff\xd8\xff", "a single image", "send a zip of folders of images, one for each class"),
    (0, b"GIF8", "a single image", "send a zip of folders of images, one for each class"),
)  # fmt: skip

HTML = (b"<!doctype html", b"<html")

# Pickles of protocol 2 to 5.
PICKLES = tuple(b"\x80" + bytes([protocol]) for protocol in range(2, 6))


def name(start: bytes) -> str:
    """What a file is that begins with the bytes `start` (of 512 or more), and what to do; "" if it is nothing that we know."""
    for offset, signature, what, advice in SIGNATURES:
        if start[offset:].startswith(signature):
            return f"the file is {what}; {advice}"
    if start.lstrip().lower().startswith(HTML):
        return "the file is a web page; download the data themselves"
    if start.startswith(PICKLES):
        return f"the file is a pickle, which could run code and is not read; write the arrays with {ARRAYS}"
    return ""
