"""The application: routes, errors, and what lives as long as they do."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from importlib.metadata import version
from threading import Event

import torch
from fastapi import FastAPI

from service.api import checkpoints, datasets, errors, events, jobs, operations, predictors
from service.api.bodies import BodyLimit
from service.api.context import Context
from service.api.keys import ApiKeys, parse_keys
from service.blobs import Blobs
from service.inspection.pool import Inspectors
from service.serving.predictors import Predictors
from service.settings import Settings
from service.store.database import Database
from service.sweep import sweep_forever
from service.uploads.intake import Intake
from service.uploads.staging import clear_abandoned
from service.wake import make_waker

DESCRIPTION = """
Upload a pretrained convolutional network; a worker trains a small predictor of its weights;
fetch weights by coordinate, or the whole network, rebuilt while they are streamed.
"""


def create_app(settings: Settings) -> FastAPI:
    """The service's ASGI application. Its database must have been migrated."""
    # One thread a render, so that the order of the sums in a matrix product does not depend on the machine's load.
    torch.set_num_threads(1)
    database = Database(settings.database)
    blobs = Blobs(settings.blobs)
    inspectors = Inspectors(settings.inspectors)
    context = Context(
        settings=settings,
        database=database,
        blobs=blobs,
        intake=Intake(settings, database, blobs, inspectors),
        predictors=Predictors(database),
        waker=make_waker(settings.broker_url),
        release=version("nern"),
        stopping=Event(),
    )

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        clear_abandoned(settings)
        sweeping = asyncio.create_task(sweep_forever(database, context.waker, settings))
        async with inspectors:
            yield
        sweeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sweeping
        database.close()

    app = FastAPI(title="NeRN", version=context.release, description=DESCRIPTION, lifespan=lifespan)
    app.state.context = context
    errors.install(app)
    app.add_middleware(BodyLimit, limit=settings.max_body_bytes)
    app.add_middleware(ApiKeys, keys=parse_keys(settings.api_keys.get_secret_value()))
    for module in (checkpoints, datasets, jobs, events, predictors, operations):
        app.include_router(module.router)
    return app
