"""The command line: `nern serve`, `nern worker`, `nern migrate`, `nern keys`, `nern cleanup` and `nern export`.

This module imports nothing large, so that `nern --help` answers at once. Each command imports the modules that it needs.
"""

import argparse
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="nern",
        description="Neural representations of convolutional networks, as a service. Settings: environment variables NERN_*",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="run the API and, unless NERN_BROKER_URL is set, a local worker")
    serve.add_argument("--no-worker", action="store_true", help="run the API without a local worker")
    serve.add_argument("--json", action="store_true", help="print the address of the API as JSON")
    commands.add_parser("worker", help="run a worker that polls the database")
    commands.add_parser("migrate", help="bring the database to the schema of this release")
    clean = commands.add_parser("cleanup", help="remove what has been kept for long enough, and blobs without a row")
    clean.add_argument("--dry-run", action="store_true", help="remove nothing, and tell what would be removed")
    clean.add_argument("--json", action="store_true", help="print the numbers as JSON")
    _add_keys(commands.add_parser("keys", help="create, list, rotate and revoke API keys"))
    export = commands.add_parser("export", help="write a network of your own as a file that can be uploaded")
    export.add_argument("source", metavar="FILE.py:function", help="a function that returns the module and example inputs")
    export.add_argument("-o", "--output", default="network.pt2", help="the file to write (default: network.pt2)")
    export.add_argument("--weights", help="a file with a state_dict for the module: .safetensors, or of torch.save")
    options = parser.parse_args(arguments)

    from service.commands import run

    run(options)


def _add_keys(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True)
    create = actions.add_parser("create", help="make a key, and print it")
    create.add_argument("--owner", help="whose things the key opens (default: those of the service itself)")
    create.add_argument("--scope", choices=("read", "write", "admin"), default="write", help="default: write")
    create.add_argument("--name", default="", help="what the key is for")
    create.add_argument("--days", type=float, help="after so many days the key ends (default: never)")
    listing = actions.add_parser("list", help="list all keys, newest first")
    listing.add_argument("--owner", help="those of one owner")
    rotate = actions.add_parser("rotate", help="make a key in place of another one")
    rotate.add_argument("--overlap-hours", type=float, default=24.0, help="for so long the old key stays valid (default: 24)")
    revoke = actions.add_parser("revoke", help="end a key at once")
    for action in (rotate, revoke):
        action.add_argument("id", help="id of the key")
    for action in (create, listing, rotate, revoke):
        action.add_argument("--json", action="store_true", help="print JSON")


if __name__ == "__main__":
    main()
