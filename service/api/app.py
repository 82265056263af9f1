"""The FastAPI application: routes, middleware, and the parts of the service that live as long as the application."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from importlib.metadata import version
from threading import Event

import torch
from fastapi import Depends, FastAPI
from fastapi.telemetry import TelemetryConfig
from starlette.concurrency import run_in_threadpool
from starlette.routing import Route

from service.access.buckets import make_buckets
from service.access.keys import ApiKeys, is_loopback, parse_keys
from service.access.limits import RequestLimit
from service.api import checkpoints, datasets, events, jobs, keys, operations, predictors, shares, uploads, usage, workers
from service.api.context import Context
from service.http import errors
from service.http.access_log import AccessLog
from service.http.bodies import BodyLimit, validate_media_type
from service.http.fields import validate_parameters
from service.http.methods import Methods
from service.http.openapi import DocumentedApp
from service.http.policy import Policies, policy
from service.http.request_ids import RequestIds
from service.http.tus import TusMiddleware
from service.inspection.pool import Inspectors
from service.jobs.cleanup import cleanup_forever
from service.jobs.feed import Feed
from service.jobs.sweep import sweep_forever
from service.jobs.wakeups import make_waker
from service.metrics.requests import RequestMetrics
from service.readiness import Readiness
from service.serving.predictors import Predictors
from service.serving.renderer import Renderer
from service.settings import Settings
from service.store import migrate
from service.store.blobs import Blobs, Unreachable
from service.store.database import Away, Database
from service.store.marking import is_new, mark
from service.uploads.intake import Intake
from service.uploads.resumable import Uploads
from service.uploads.resumable import sweep_forever as sweep_uploads
from service.uploads.staging import clear_abandoned, probe_room
from service.webhooks.sender import send_forever

log = logging.getLogger(__name__)

DESCRIPTION = """
NeRN turns a pretrained convolutional network into a neural representation: a small predictor that computes the weights of the
network from their coordinates.

Upload a checkpoint, and a dataset if there is one. Create a job, and a worker trains a predictor. Then fetch single kernels by
coordinate, or the weights of the whole network as a safetensors file. The service renders weights while it sends them.
"""

# Of what the framework can tell OpenTelemetry, one span for each request. `service.tracing.sending` says where it goes.
TELEMETRY: TelemetryConfig = {
    "auto_configure": False,
    "exclude": lambda scope: scope["path"] in operations.PROBES,
    "logs": False,
    "metrics": False,
    "operation_spans": False,
}


def create_app(
    settings: Settings,
    *,
    stopping: Event | None = None,
    probes: Mapping[str, Callable[[], None]] | None = None,
) -> FastAPI:
    """The ASGI application of the service. The migrations must have run on its database.

    The server sets `stopping` when it is about to stop. `probes` are additional probes for /readyz, by name; each raises an
    exception if the service is not ready.
    """
    # A render uses one thread, so that the order of the sums in a matrix product does not depend on the load of the machine.
    torch.set_num_threads(1)
    release = version("nern")
    database = Database(settings.database)
    blobs = Blobs(settings.blobs, make=settings.blob_url is None or is_new(database))
    inspectors = Inspectors(settings.inspectors)
    stopping = stopping or Event()
    intake = Intake(settings, database, blobs, inspectors)
    waker = make_waker(settings.broker_url)
    buckets = make_buckets(settings.owner_requests_per_minute, settings.broker_url)
    context = Context(
        owner="",
        settings=settings,
        database=database,
        whole_database=database,
        blobs=blobs,
        intake=intake,
        uploads=Uploads(settings, database, blobs, intake, stopping),
        predictors=Predictors(database),
        waker=waker,
        feed=Feed(database, stopping, poll_seconds=settings.poll_seconds),
        renderer=Renderer.here(release),
        stopping=stopping,
        readiness=Readiness(
            {
                "database": database.probe,
                "schema": partial(migrate.probe, database),
                "blobs": partial(mark, database, blobs),
                "storage": partial(probe_room, settings),
                "broker": waker.probe,
                "inspection": inspectors.probe,
                **(probes or {}),
            }
        ),
    )

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        clear_abandoned(settings)
        await run_in_threadpool(_mark, database, blobs)
        async with inspectors:
            sweeps = [
                sweep_forever(database, settings),
                sweep_uploads(context.uploads, settings),
                cleanup_forever(database, blobs, settings),
                send_forever(database, settings),
            ]
            sweeping = [asyncio.create_task(sweep) for sweep in sweeps]
            yield
            for task in sweeping:
                task.cancel()
            await asyncio.gather(*sweeping, return_exceptions=True)
        if buckets:
            await buckets.close()
        database.close()

    app = DocumentedApp(
        title="NeRN",
        version=release,
        description=DESCRIPTION,
        lifespan=lifespan,
        telemetry=TELEMETRY,
        # A redirection to the path without a slash at its end would lead to the host that the request names.
        redirect_slashes=False,
    )
    app.state.context = context
    errors.install(app)
    routes = [*app.routes]
    for route in app.routes:
        # These are the routes that the framework makes: the OpenAPI document and its pages.
        assert isinstance(route, Route)
        policy("read" if route.path == app.redoc_url else "open")(route.endpoint)
    for module in (checkpoints, datasets, uploads, jobs, events, predictors, shares, workers, usage, keys, operations):
        # Probes may add parameters of their own.
        validated = [] if module is operations else [Depends(validate_parameters), Depends(validate_media_type)]
        app.include_router(module.router, dependencies=validated)
        routes += module.router.routes
    # A request passes the middleware that is added last first.
    app.add_middleware(Methods, routes=routes)
    app.add_middleware(BodyLimit, limit=settings.max_body_bytes)
    given = parse_keys(settings.api_keys.get_secret_value())
    app.add_middleware(RequestLimit, buckets=buckets)
    app.add_middleware(ApiKeys, given=given, database=database, required=bool(given) or not is_loopback(settings.host))
    app.add_middleware(errors.Faults)
    app.add_middleware(AccessLog)
    app.add_middleware(RequestMetrics)
    app.add_middleware(Policies, routes=routes)
    app.add_middleware(TusMiddleware, prefix=uploads.PREFIX)
    app.add_middleware(RequestIds)
    return app


def _mark(database: Database, blobs: Blobs) -> None:
    """Marks the blob store for the workers. If that fails, the readiness probe says so and tries again."""
    try:
        mark(database, blobs)
    except (Unreachable, Away) as error:
        log.error("the blob store can't be used: %s", error)
