"""The command line: `nern serve`, `nern worker`, `nern migrate`, `nern cleanup` and `nern export`.

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
    export = commands.add_parser("export", help="write a network of your own as a file that can be uploaded")
    export.add_argument("source", metavar="FILE.py:function", help="a function that returns the module and example inputs")
    export.add_argument("-o", "--output", default="network.pt2", help="the file to write (default: network.pt2)")
    export.add_argument("--weights", help="a file with a state_dict for the module: .safetensors, or of torch.save")
    options = parser.parse_args(arguments)

    from service.commands import run

    run(options)


if __name__ == "__main__":
    main()
