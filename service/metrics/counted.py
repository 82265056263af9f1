"""What a process counts itself. A process that starts anew counts from 0 again, and Prometheus knows that.

Labels have values from the code alone, never from a client. So the number of series is bounded. The series of labels whose
values are known exist from the start, because Prometheus can't see an increase from nothing.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary

REGISTRY = CollectorRegistry()

REQUEST_SECONDS = Histogram(
    "nern_http_request_duration_seconds",
    "Time from a request to the start of its answer",
    ["method", "route", "status"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
    registry=REGISTRY,
)
REQUEST_BYTES = Counter(
    "nern_http_request_bytes_total", "Bytes of the bodies of requests", ["method", "route"], registry=REGISTRY
)
RESPONSE_BYTES = Counter(
    "nern_http_response_bytes_total", "Bytes of the bodies of answers", ["method", "route"], registry=REGISTRY
)
REQUESTS_IN_PROGRESS = Gauge(
    "nern_http_requests_in_progress", "Requests that are being answered, with event streams", registry=REGISTRY
)
READY = Gauge(
    "nern_ready", "Whether a part of the service was ready when that was last asked (1) or not (0)", ["part"], registry=REGISTRY
)

RENDER_SECONDS = Summary("nern_render_seconds", "Time in which a block of weights was rendered", registry=REGISTRY)
RENDER_BYTES = Counter("nern_render_bytes_total", "Bytes of the weights that were rendered", registry=REGISTRY)
CACHE_REQUESTS = Counter(
    "nern_cache_requests_total",
    "Lookups of predictors and of rendered blocks in memory",
    ["cache", "result"],
    registry=REGISTRY,
)

INSPECTION_SECONDS = Histogram(
    "nern_inspection_seconds",
    "Time of the inspection of an uploaded file, with the wait for a process",
    ["kind", "outcome"],
    buckets=(0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120),
    registry=REGISTRY,
)

DATABASE_ERRORS = Counter(
    "nern_database_errors_total", "Uses of the database that failed because of the database", ["error"], registry=REGISTRY
)
BLOB_ERRORS = Counter(
    "nern_blob_errors_total", "Uses of the blob store that failed because of the blob store", ["error"], registry=REGISTRY
)
LEASE_EXPIRIES = Counter(
    "nern_lease_expiries_total",
    "Expired leases that the sweep of this process found, by the state of the job after that",
    ["state"],
    registry=REGISTRY,
)
WEBHOOK_ATTEMPTS = Counter(
    "nern_webhook_attempts_total",
    "Attempts to send the message of a webhook, by the state of the message after that",
    ["state"],
    registry=REGISTRY,
)

QUEUE_SECONDS = Histogram(
    "nern_job_queue_seconds",
    "Time from the creation of a job to its first claim",
    buckets=(0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14_400, 86_400),
    registry=REGISTRY,
)
ATTEMPTS = Counter("nern_attempts_total", "Attempts at jobs that this worker has ended", ["outcome"], registry=REGISTRY)
SNAPSHOTS = Counter("nern_snapshots_total", "Snapshots that this worker has tried to store", ["outcome"], registry=REGISTRY)

for _metric, _values in (
    (DATABASE_ERRORS, ("away", "exhausted", "schema")),
    (BLOB_ERRORS, ("unreachable", "full")),
    (LEASE_EXPIRIES, ("queued", "paused", "failed", "cancelled")),
    (WEBHOOK_ATTEMPTS, ("delivered", "pending", "failed")),
    (ATTEMPTS, ("succeeded", "failed", "cancelled", "given_back", "lost")),
    (SNAPSHOTS, ("stored", "failed")),
):
    for _value in _values:
        _metric.labels(_value)

PREDICTOR_HIT, PREDICTOR_MISS, BLOCK_HIT, BLOCK_MISS = (
    CACHE_REQUESTS.labels(cache, result) for cache in ("predictors", "blocks") for result in ("hit", "miss")
)
