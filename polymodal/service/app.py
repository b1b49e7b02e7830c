"""The HTTP shell round an Engine, and the page. All decisions are the Engine's; here is only what HTTP adds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Annotated, Any, TypeVar

from polymodal.service.engine import Engine
from polymodal.service.schemas import (
    ErrorOut,
    FacetOut,
    Health,
    Info,
    ItemOut,
    Limits,
    ModalityOut,
    Recommendations,
    RecommendedOut,
    ResultOut,
    Results,
    input_of,
    recommend_body,
    search_body,
)
from polymodal.tasks.recommend import Recommended
from polymodal.types import BadInput, Hit, MediaError, MissingExtra, Record

try:
    import anyio
    import anyio.to_thread
    import python_multipart  # noqa: F401  (Starlette needs it, and says so only when a form arrives)
    from fastapi import FastAPI, Query, Request
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import FileResponse, JSONResponse, Response
    from fastapi.staticfiles import StaticFiles
    from starlette.datastructures import FormData, MutableHeaders
    from starlette.exceptions import HTTPException
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from polymodal.service.forms import Form
except ImportError as missing:
    raise MissingExtra(missing.name or "fastapi", "serve") from None

from polymodal.index import UnknownId

__all__ = ["Limits", "create_app", "serve"]

PAGE = Path(__file__).parent / "page"
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' blob:; "
        "media-src 'self' blob:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_Result = TypeVar("_Result")


class _Shell:
    """What every request passes: headers on the way out, and on the way in a count of the bytes.

    The count is kept while the body arrives, because a length that is announced may be missing or wrong.
    """

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app, self._limit = app, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._limit:
                raise _too_large(self._limit)
            return message

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > self._limit:
            await _http_error(Request(scope), _too_large(self._limit))(scope, receive, with_headers)
            return
        await self._app(scope, counted, with_headers)


def _too_large(limit: int) -> HTTPException:
    return HTTPException(413, f"the request is larger than {limit:,} bytes")


def _error(status: int, error: ErrorOut) -> JSONResponse:
    return JSONResponse(error.model_dump(), status_code=status)


def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    response = _error(error.status_code, ErrorOut(message=str(error.detail)))
    response.headers.update(error.headers or {})
    return response


def _bad_input(_: Request, error: Exception) -> Response:
    assert isinstance(error, BadInput)
    out = ErrorOut(message=str(error), field=error.field, expected=error.expected, got=error.got[:500], hint=error.hint)
    return _error(404 if isinstance(error, UnknownId) else 400, out)


def _media_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, MediaError)
    return _error(422, ErrorOut(message=str(error), field="file", got=error.detail, reason=error.reason))


def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    field = str(first["loc"][-1])
    return _bad_input(_, BadInput(field, str(first["msg"]), repr(first.get("input"))))


def _unexpected(_: Request, error: Exception) -> Response:
    # the traceback goes to the log of the server, never to the client
    return _error(500, ErrorOut(message=f"an error on our side ({type(error).__name__}); the log has the details"))


def create_app(engine: Engine, limits: Limits | None = None) -> FastAPI:
    """The service over an engine.

    Args:
        engine: embedder, index, media.
        limits: sizes, and the names under which the service may be called.

    Returns:
        An ASGI application; its OpenAPI document (`/openapi.json`) names the modalities of this model.
    """
    limits = limits or Limits()
    modalities = [input_of(name, kind) for name, kind in engine.modalities.items()]
    form = Form(modalities, limits)
    # no interactive documentation: its scripts come from elsewhere
    app = FastAPI(title="polymodal", description="Search by any mix of modalities.", docs_url=None, redoc_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(limits.hosts))
    app.add_middleware(_Shell, limit=limits.max_body_bytes)
    for kind, handler in (
        (HTTPException, _http_error),
        (BadInput, _bad_input),
        (MediaError, _media_error),
        (RequestValidationError, _invalid),
        (Exception, _unexpected),
    ):
        app.add_exception_handler(kind, handler)
    _add_search(app, engine, form, limits, modalities)
    _add_items(app, engine, form, _worker(limits))
    app.mount("/page", StaticFiles(directory=PAGE))

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE / "index.html", headers={"Cache-Control": "no-cache"})

    return app


Worker = Callable[[Callable[[], Any]], Awaitable[Any]]


def _worker(limits: Limits, at_once: int = 1) -> Worker:
    """Runs work in a thread, `at_once` at a time, so that the event loop (and with it /api/health) stays free."""
    limiter = anyio.CapacityLimiter(at_once)

    async def run(work: Callable[[], _Result]) -> _Result:
        busy = limiter.available_tokens < 1
        if busy and limiter.statistics().tasks_waiting >= limits.max_waiting:
            raise HTTPException(503, "too many searches are waiting; try again", {"Retry-After": "2"})
        return await anyio.to_thread.run_sync(work, limiter=limiter)

    return run


_ERRORS: dict[int | str, dict[str, Any]] = {400: {"model": ErrorOut, "description": "Bad input, and what to do"}}
_SEARCH_ERRORS: dict[int | str, dict[str, Any]] = {
    **_ERRORS,
    413: {"model": ErrorOut, "description": "The request is too large"},
    422: {"model": ErrorOut, "description": "A file cannot be decoded, and why"},
    503: {"model": ErrorOut, "description": "Too many searches are waiting"},
}
_RECOMMEND_ERRORS = {**_SEARCH_ERRORS, 404: {"model": ErrorOut, "description": "An item of the history is unknown"}}
_ITEM_ERRORS: dict[int | str, dict[str, Any]] = {
    **_ERRORS,
    404: {"model": ErrorOut, "description": "No such item"},
    422: {"model": ErrorOut, "description": "A file cannot be shown, and why"},
}


def _results(engine: Engine, hits: list[Hit], used: list[str]) -> Results:
    cards = engine.cards(hits)
    return Results(used=used, results=[ResultOut.found(hit, card) for hit, card in zip(hits, cards, strict=True)])


def _recommended(engine: Engine, found: list[Recommended], used: list[str]) -> Recommendations:
    cards = engine.cards([Hit(one.id, one.score, one.attributes) for one in found])
    listed = [RecommendedOut.found(one, card) for one, card in zip(found, cards, strict=True)]
    return Recommendations(used=used, results=listed)


def _add_search(app: FastAPI, engine: Engine, form: Form, limits: Limits, modalities: list[ModalityOut]) -> None:
    run = _worker(limits)

    def _sent(request: Request) -> AbstractAsyncContextManager[FormData]:
        fields = len(modalities) + form.others
        return request.form(max_files=limits.max_files, max_fields=fields + limits.max_files)

    @app.get("/api/health")
    async def health() -> Health:
        """Whether the process answers; it does while a search runs."""
        return Health()

    @app.get("/api/info")
    def info() -> Info:
        """The model, its modalities, and what can be filtered on."""
        attributes = [FacetOut.of(name, facet) for name, facet in engine.facets().items()]
        return Info(
            model=engine.index.model,
            index=engine.index.kind,
            items=len(engine.index),
            width=engine.index.width,
            max_k=limits.max_k,
            modalities=modalities,
            attributes=attributes,
        )

    @app.post("/api/search", responses=_SEARCH_ERRORS, openapi_extra=search_body(modalities, limits))
    async def search(request: Request) -> Results:
        """The nearest items to any mix of modalities."""
        async with _sent(request) as data:
            record, k, where = await form.read(data)
        used = list(record.values)
        results: Results = await run(lambda: _results(engine, engine.search(record, k, where), used))
        return results

    @app.post("/api/recommend", responses=_RECOMMEND_ERRORS, openapi_extra=recommend_body(modalities, limits))
    async def recommend(request: Request) -> Recommendations:
        """A list for a topic (any mix of modalities) or a history (ids): one item of a group, as diverse as asked."""
        async with _sent(request) as data:
            asked, wanted, where = await form.read_wish(data)
        used = list(asked.values) if isinstance(asked, Record) else ["history"]
        found: Recommendations = await run(lambda: _recommended(engine, engine.recommend(asked, wanted, where), used))
        return found


def _add_items(app: FastAPI, engine: Engine, form: Form, run: Worker) -> None:
    @app.get("/api/similar/{name:path}", responses=_ITEM_ERRORS)
    async def similar(
        name: str,
        k: Annotated[int | None, Query(ge=1)] = None,
        where: Annotated[str | None, Query(description="JSON, as in a search")] = None,
    ) -> Results:
        """The nearest items to an item, itself left out."""
        count, filters = form.k(k), form.where(where)
        results: Results = await run(lambda: _results(engine, engine.similar(name, count, filters), []))
        return results

    @app.get("/api/items/{name:path}", responses=_ITEM_ERRORS)
    def item(name: str) -> ItemOut:
        """An item as it is shown."""
        return ItemOut.of(engine.card(name))

    @app.get("/media/{name:path}/{number}", responses=_ITEM_ERRORS, response_class=FileResponse)
    def media(name: str, number: int) -> FileResponse:
        """A picture, sound or clip of an item."""
        try:
            found = engine.media(name, number)
        except MediaError as error:
            if error.reason == "missing":
                raise HTTPException(404, str(error)) from None
            raise
        return FileResponse(
            found.path, media_type=found.content_type, headers={"Cache-Control": "private, max-age=3600"}
        )


def serve(engine: Engine, host: str = "127.0.0.1", port: int = 8000, limits: Limits | None = None) -> None:
    """Run the service until it is stopped. Beyond this machine (another `host`) it may be called by any name.

    Raises:
        MissingExtra: uvicorn is not installed.
    """
    try:
        import uvicorn
    except ImportError:
        raise MissingExtra("uvicorn", "serve") from None
    limits = limits or Limits()
    if host not in limits.hosts:
        limits = limits.replace(hosts=("*",))
    uvicorn.run(create_app(engine, limits), host=host, port=port, log_level="warning", server_header=False)
