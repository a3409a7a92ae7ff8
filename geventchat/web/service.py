"""The chat in a browser, as what listeners pass their clients to: which path is answered by what."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from functools import partial

from geventchat.chat.events import DisconnectNotice
from geventchat.dialects import json, json2
from geventchat.dialects.websocket import HandshakeRefused, WebSocketFraming, accept
from geventchat.net.connection import ChatService, Connection, ServerContext
from geventchat.net.delivery import Encoding
from geventchat.net.service import Accepted
from geventchat.web import api
from geventchat.web.connection import HttpConnection, HttpService, Upgrade
from geventchat.web.http import Request, Response
from geventchat.web.origins import Origins
from geventchat.web.pages import COMMON_FIELDS, Page, pages

NAME = "web"
# Compressing them takes a while, which clients should not have to wait for when a new program takes over.
_PAGES = pages()


def web_service(
    context: ServerContext, idle_s: float, idle_notice: DisconnectNotice | None, origins: Origins
) -> HttpService:
    """The service. The context is that of the chat."""
    encodings = {
        dialect.name: Encoding(dialect, WebSocketFraming) for dialect in (json.DIALECT, json2.DIALECT)
    }
    # A client begins in version 2; one that joins without it goes on in version 1, over WebSocket too.
    chat = ChatService(
        encodings[json2.DIALECT.name], replace(context, encodings=encodings), idle_s, idle_notice
    )
    return HttpService(NAME, context, Site(chat, origins, _PAGES).answer, COMMON_FIELDS, chat)


class Site:
    """Everything that can be asked for."""

    def __init__(self, chat: ChatService, origins: Origins, pages: dict[str, Page]) -> None:
        self._chat = chat
        self._origins = origins
        self._pages = pages

    def answer(self, request: Request, connection: HttpConnection) -> Response | Upgrade:
        """Answer one request."""
        match request.path:
            case ("ws",):
                return self._open_websocket(request, connection)
            case ("api", "rooms", room, "messages"):
                return self._ask_chat(room, request, connection)
            case ("api", *_):
                return api.refusal(404, "not-found", "No such address")
            case (name,) if name in self._pages:
                return (
                    self._pages[name].answer(request)
                    if request.method in _READING
                    else _not_allowed(_READING)
                )
            case _:
                return Response(404, b"there is nothing here\n")

    def _open_websocket(self, request: Request, connection: HttpConnection) -> Response | Upgrade:
        if request.method != "GET":
            return _not_allowed(("GET",))
        refusal = self._refuse_origin(request, connection)
        upgrades = "websocket" in request.tokens("upgrade")
        if refusal is None and not upgrades:
            # The page asks for this where it cannot open a WebSocket, and shows why.
            refusal = self._origins.refuse_host(request.host, partial(_local_host, connection))
        if refusal is not None:
            return Response(403, f"{refusal}\n".encode())
        if not upgrades:
            return Response(426, b"this is for WebSockets\n", fields=(("Upgrade", "websocket"),))
        try:
            return Upgrade(accept(request.head), self._chat_connection)
        except HandshakeRefused as refused:
            return Response(refused.status, f"{refused.message}\n".encode(), fields=refused.fields)

    def _chat_connection(self, accepted: Accepted, received: bytes) -> Connection:
        return Connection(accepted, self._chat, received)

    def _ask_chat(self, room: str, request: Request, connection: HttpConnection) -> Response:
        refusal = self._refuse_origin(request, connection)
        if refusal is not None:
            return api.refusal(403, "foreign-origin", refusal)
        if request.method not in api.METHODS:
            response = api.refusal(405, "method-not-allowed", "Method not allowed")
            return replace(response, fields=(*response.fields, *_allow(api.METHODS)))
        return api.answer(room, request, connection, self._chat.context.chat)

    def _refuse_origin(self, request: Request, connection: HttpConnection) -> str | None:
        return self._origins.refuse(
            request.fields.get("origin"), request.host, partial(_local_host, connection)
        )


_READING = ("GET", "HEAD")


def _local_host(connection: HttpConnection) -> str:
    return connection.local_host


def _allow(methods: Collection[str]) -> tuple[tuple[str, str], ...]:
    return (("Allow", ", ".join(methods)),)


def _not_allowed(methods: Collection[str]) -> Response:
    return Response(405, b"method not allowed\n", fields=_allow(methods))
