"""What the browser talks to: the page's own files, faces of a photo, and whether the server is well. Nothing else.

The page and its gateway have one origin, so the browser needs no permission from Triton, which sends no CORS headers,
and Triton's other endpoints (repository, shared memory, logging) are out of a page's reach.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

from aiohttp import web

from clients.aio import AsyncFaceAttributesClient
from clients.errors import DeadlineExceeded, FaceAttributesError, InvalidImage, ServerBusy, ServerUnavailable
from contract.images import MAX_ENCODED_BYTES

FOLDER = Path(__file__).parent / "static"
FILES = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/example.jpg": ("example.jpg", "image/jpeg"),
}
LOCAL_NAMES = ("127.0.0.1", "localhost", "::1")
HEADERS = {
    # The browser itself refuses whatever is not the page's own, should a script ever get in.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Permissions-Policy": "camera=(self)",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

CLIENT = web.AppKey("client", AsyncFaceAttributesClient)
NAMES = web.AppKey("names", frozenset[str])


def application(client: AsyncFaceAttributesClient, *, names: Sequence[str] = ()) -> web.Application:
    """Return the gateway to the client's server.

    names: host names that a browser may ask for it by, besides this machine's own. The client is the caller's to close.
    """
    app = web.Application(client_max_size=MAX_ENCODED_BYTES, middlewares=[_guard])
    app[CLIENT] = client
    app[NAMES] = frozenset((*LOCAL_NAMES, *names))
    for path in FILES:
        app.router.add_get(path, _file)
    app.router.add_get("/health", _health)
    app.router.add_post("/faces", _faces)
    return app


@web.middleware
async def _guard(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Refuse another site's requests (Origin) and names that another site made point here (Host: DNS rebinding)."""
    if urlsplit(f"//{request.host}").hostname not in request.app[NAMES]:
        response: web.StreamResponse = _error(HTTPStatus.FORBIDDEN, "this host name is not the page's; see --names")
    elif request.method == "POST" and request.headers.get("Origin") != f"{request.scheme}://{request.host}":
        response = _error(HTTPStatus.FORBIDDEN, "only the page itself may ask")
    else:
        try:
            response = await handler(request)
        except web.HTTPException as error:  # no such path or method, or a body above client_max_size
            response = _error(HTTPStatus(error.status), error.reason)
    response.headers.update(HEADERS)
    return response


async def _file(request: web.Request) -> web.StreamResponse:
    name, content_type = FILES[request.path]
    return web.Response(body=(FOLDER / name).read_bytes(), content_type=content_type)


async def _health(request: web.Request) -> web.StreamResponse:
    try:
        health = await request.app[CLIENT].health()
    except FaceAttributesError:
        return web.json_response({"ready": False}, status=HTTPStatus.SERVICE_UNAVAILABLE)
    return web.json_response({"ready": health.ready})


async def _faces(request: web.Request) -> web.StreamResponse:
    """The faces of the photo that is the request's body, as `find_faces` has them."""
    photo = await request.read()
    try:
        faces = await request.app[CLIENT].find_faces(photo)
    except InvalidImage as error:  # the server's own words; its address is no business of the page
        return _error(HTTPStatus.UNPROCESSABLE_ENTITY, str(error).removeprefix(f"{request.app[CLIENT].url}: "))
    except (ServerBusy, ServerUnavailable):
        return _error(HTTPStatus.SERVICE_UNAVAILABLE, "the server is busy or not running; try again in a moment")
    except DeadlineExceeded:
        return _error(HTTPStatus.GATEWAY_TIMEOUT, "the server took too long; try a smaller photo")
    except FaceAttributesError:  # a matter for whoever runs the server
        return _error(HTTPStatus.BAD_GATEWAY, "the server failed")
    return web.json_response({"in_photo": faces.in_photo, "faces": [face.to_dict() for face in faces]})


def _error(status: HTTPStatus, message: str) -> web.Response:
    return web.json_response({"error": message}, status=status)
