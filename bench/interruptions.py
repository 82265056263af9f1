"""Does a file arrive whole, however often the connection is cut? The real service, the client tuspy, and a proxy between them.

python -m bench.interruptions [--interruptions 1000] [--megabytes 64] [--quick]

The proxy cuts each connection after a random number of bytes, whatever the request is, until it has made all interruptions.
"plain": the client sends up to 4 MiB in one request. "checksums": it sends pieces of 64 KiB with a checksum each, of
which the service keeps all bytes or none. "sent" is what went to the service, headers included, over the size of the file. The
benchmark fails unless the dataset that comes out has the SHA-256 hash of the file.
"""

import argparse
import hashlib
import time
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import numpy as np
from tusclient.client import TusClient
from tusclient.exceptions import TusCommunicationError, TusUploadFailed
from tusclient.uploader.uploader import Uploader

from bench.tables import Row, parser, progress, show
from bench.uploads import serving
from tests.support.cuts import cutting

PIECE_BYTES = 64 * 2**10
REQUEST_BYTES = 4 * 2**20
IMAGE_BYTES = 64 * 64 * 3


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--interruptions", type=int, default=1000)
    arguments.add_argument("--megabytes", type=int, default=64, help="size of the file")
    options = arguments.parse_args()
    if options.quick:
        options.interruptions, options.megabytes = 50, 16
    rows: list[Row] = []
    for checked in (False, True):
        rows.append(measure(options, checked=checked))
        progress.print(rows[-1])
    show(rows, "Interrupted uploads", options)


def measure(options: argparse.Namespace, *, checked: bool) -> Row:
    """One upload."""
    random = np.random.default_rng(options.seed)
    file = BytesIO()
    count = options.megabytes * 10**6 // IMAGE_BYTES
    np.savez(file, images=random.integers(0, 256, (count, 64, 64, 3), dtype=np.uint8))
    content = file.getvalue()
    longest = PIECE_BYTES * 3 // 2 if checked else 2 * len(content) // options.interruptions

    def after() -> int | None:
        return int(random.integers(1, longest)) if cuts.made < options.interruptions else None

    with TemporaryDirectory() as folder, serving(Path(folder)) as (url, _), cutting(url, after) as cuts:
        while httpx.get(f"{url}/readyz").status_code != 200:
            time.sleep(0.1)
        client = TusClient(f"{url}/v1/uploads")
        sent = client.uploader(
            file_stream=BytesIO(content),
            metadata={"kind": "dataset", "filename": "images.npz"},
            chunk_size=PIECE_BYTES if checked else REQUEST_BYTES,
            upload_checksum=checked,
        )
        address = sent.create_url()
        sent.set_url(address.replace(url, cuts.url))
        started = time.perf_counter()
        persist(sent)
        seconds = time.perf_counter() - started
        shown = httpx.get(address).json()
        made = httpx.get(f"{url}{shown['resource']}").json()
        assert made["sha256"] == hashlib.sha256(content).hexdigest(), shown
    return {
        "pieces": "checksums" if checked else "plain",
        "bytes": len(content),
        "interruptions": cuts.made,
        "seconds": seconds,
        "sent": cuts.nbytes / len(content),
    }


def persist(sent: Uploader) -> None:
    """Uploads a file, however often that fails. (The retries of tuspy are recursive, and keep each request in memory.)"""
    while True:
        try:
            sent.upload()
            return
        except (TusUploadFailed, TusCommunicationError):
            with suppress(TusCommunicationError):
                sent.offset = sent.get_offset()


if __name__ == "__main__":
    main()
