"""A proxy that cuts connections after some bytes, as bad networks do."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Thread

RECEIVED_BYTES = 16_384


class Cuts:
    """A TCP proxy in front of a server. `after` says, for each connection, after how many bytes to the server it is cut.

    None lets a connection be. `made` counts the cuts, and `nbytes` the bytes that went to the server.
    """

    def __init__(self, host: str, port: int, after: Callable[[], int | None]) -> None:
        self.made = self.nbytes = 0
        self._server = (host, port)
        self._after = after
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"

    def run(self) -> None:
        """Accepts connections until `close` is called."""
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                Thread(target=self._connect, args=(client,), daemon=True).start()

    def close(self) -> None:
        # Without the shutdown, `accept` in the other thread would go on.
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _connect(self, client: socket.socket) -> None:
        left = self._after()
        with client, suppress(OSError), socket.create_connection(self._server) as server:
            back = Thread(target=_copy, args=(server, client), daemon=True)
            back.start()
            while data := client.recv(RECEIVED_BYTES if left is None else min(RECEIVED_BYTES, left)):
                server.sendall(data)
                self.nbytes += len(data)
                if left is not None and (left := left - len(data)) <= 0:
                    self.made += 1
                    break
            else:
                server.shutdown(socket.SHUT_WR)
                back.join()
            for end in (client, server):
                end.shutdown(socket.SHUT_RDWR)


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(RECEIVED_BYTES):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


@contextmanager
def cutting(url: str, after: Callable[[], int | None]) -> Iterator[Cuts]:
    """A block in which a proxy stands in front of the server at `url`."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    cuts = Cuts(host, int(port), after)
    accepting = Thread(target=cuts.run)
    accepting.start()
    try:
        yield cuts
    finally:
        cuts.close()
        accepting.join()
