"""The commands of `nern`."""

import json
import os
from argparse import Namespace
from dataclasses import asdict
from pathlib import Path

from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from service.logs.configuration import configure, give_up
from service.settings import Settings
from service.store import keys, migrate
from service.store.blobs import Blobs, Unreachable
from service.store.database import Away, Database, now
from service.store.migrate import ReleaseOutdated
from service.supervisor import module_command


def run(options: Namespace) -> None:
    """Runs the command `options.command`. Raises SystemExit with a message if a setting is wrong or the database fails."""
    if options.command == "export":
        from service import exporting

        exporting.run(options.source, Path(options.output), Path(options.weights) if options.weights else None)
        return
    configure()
    try:
        settings = Settings.load()
        if options.command == "serve":
            _serve(settings, with_worker=not options.no_worker and not settings.broker_url, as_json=options.json)
        elif options.command == "migrate":
            _migrate(settings)
        elif options.command == "keys":
            _keys(settings, options)
        elif options.command == "cleanup":
            _cleanup(settings, dry_run=options.dry_run, as_json=options.json)
        else:
            command = module_command("worker")
            os.execv(command[0], command)
    except ValidationError as error:
        give_up("\n".join(f"NERN_{str(item['loc'][0]).upper()}: {item['msg']}" for item in error.errors()))
    except (ValueError, OSError, SQLAlchemyError, Away, Unreachable, ReleaseOutdated) as error:
        give_up(f"nern {options.command}: {error}")


def _serve(settings: Settings, *, with_worker: bool, as_json: bool) -> None:
    from service.access.keys import is_loopback, parse_keys

    given = parse_keys(settings.api_keys.get_secret_value())
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    if settings.database_url is None:
        _migrate(settings)
    if not is_loopback(settings.host) and not given and not _has_keys(settings):
        raise ValueError(
            f"other machines can reach {settings.host}, so the service needs API keys: set NERN_API_KEYS, or make a key with "
            "nern keys create"
        )
    # This import takes seconds. A wrong setting is reported before it.
    from service.server import serve

    serve(settings, with_worker=with_worker, as_json=as_json)


def _has_keys(settings: Settings) -> bool:
    database = Database(settings.database)
    try:
        with database.read() as session:
            return keys.has_valid(session, now(session))
    finally:
        database.close()


def _migrate(settings: Settings) -> None:
    if settings.database_url is None:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
    database = Database(settings.database)
    try:
        migrate.upgrade(database)
    finally:
        database.close()


def _keys(settings: Settings, options: Namespace) -> None:
    from service.access import commands

    if settings.database_url is None:
        _migrate(settings)
    database = Database(settings.database)
    try:
        with database.write() as session:
            commands.run(session, options)
    finally:
        database.close()


def _cleanup(settings: Settings, *, dry_run: bool, as_json: bool) -> None:
    from service.jobs.cleanup import cleanup

    database = Database(settings.database)
    try:
        removed = asdict(cleanup(database, Blobs(settings.blobs, make=False), settings, dry_run=dry_run))
    finally:
        database.close()
    if as_json:
        print(json.dumps(removed))
    else:
        what = ", ".join(f"{count} {name}" for name, count in removed.items() if count) or "nothing"
        print(f"would be removed: {what}" if dry_run else f"removed: {what}")
