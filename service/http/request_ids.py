"""The id of a request, by which its answer, its lines in the log, and the job that it creates are found.

A client or a proxy may give the id in the header X-Request-ID.
"""

import re

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.logs import context
from service.store.ids import new_id

HEADER = "X-Request-ID"

# What a client may give as an id. Any other text might forge lines of a log, or fill it.
WELL_FORMED = re.compile(r"[0-9A-Za-z._:+/=@-]{1,128}", re.ASCII)

_IN_SCOPE = "nern.request_id"


def request_id_of(scope: Scope) -> str:
    """The id of a request, which `RequestIds` has found or made."""
    found: str = scope[_IN_SCOPE]
    return found


class RequestIds:
    """ASGI middleware that takes the id of a request from its header, or makes one if there is none that is well-formed.

    Each answer has the id in the same header.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).getlist(HEADER)
        id = given[0] if len(given) == 1 and WELL_FORMED.fullmatch(given[0]) else new_id()
        scope[_IN_SCOPE] = id
        # The task of a connection's later request may begin with what belongs to the request before.
        context.begin(request_id=id)

        async def with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[HEADER] = id
            await send(message)

        await self.app(scope, receive, with_id)
