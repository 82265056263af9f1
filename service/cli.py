"""The command line: `nern serve`, `nern worker`, `nern migrate`. Whatever a command needs is imported when it is run."""

import argparse
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="nern", description="Neural representations of convolutional networks, as a service. Settings: NERN_* variables."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="run the API and, unless there is a broker, a local worker")
    serve.add_argument("--no-worker", action="store_true", help="run the API alone")
    serve.add_argument("--json", action="store_true", help="print the address as JSON")
    commands.add_parser("worker", help="run a worker that polls the database")
    commands.add_parser("migrate", help="bring the database to the schema of this release")
    options = parser.parse_args(arguments)

    from service.commands import run

    run(options)


if __name__ == "__main__":
    main()
