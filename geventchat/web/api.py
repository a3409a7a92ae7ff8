"""The interface for bots: turns HTTP requests into commands of the chat, and the answers into JSON.

A request needs a token of an account. It does not log in, so no login is announced, and the account's other connections stay
open. The objects are those of version 2 of `json`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from geventchat.chat.chat import Chat
from geventchat.chat.commands import Command, InvalidCommand, ParseError, Post, ReadMessages
from geventchat.chat.events import Confirmed, HistoryPage, PrivateEvent, Rejected, Rejection
from geventchat.chat.passwords import Secret
from geventchat.chat.results import Busy, Done, Leave, More, Pending, Result
from geventchat.chat.sessions import InProcess, NoListener, Session
from geventchat.chat.text import clean_line
from geventchat.dialects.dialect import DEFAULT_HISTORY
from geventchat.dialects.json2 import past_object, short_string, shown_text
from geventchat.dialects.json_objects import MAX_INTEGER, InvalidField, error_text, parse
from geventchat.dialects.words import error_word
from geventchat.exhaustive import assert_never
from geventchat.net.connection import MESSAGES_IN_TURN
from geventchat.web.connection import HttpConnection
from geventchat.web.http import BadRequest, Request, Response

METHODS = ("GET", "HEAD", "POST")
_PARAMETERS = ("after", "limit")
_FORBIDDEN = 403
# Every other rejection is _FORBIDDEN.
_STATUSES: dict[Rejection | ParseError, int] = {
    Rejection.PASSWORD_REQUIRED: 401,
    Rejection.WRONG_PASSWORD: 401,
    Rejection.NO_SUCH_ROOM: 404,
    Rejection.ROOM_NAME_INVALID: 400,
    Rejection.EMPTY_MESSAGE: 400,
    ParseError.NOT_UTF8: 400,
    ParseError.NOT_JSON: 400,
    ParseError.INVALID_FIELD: 400,
}


class _Visitor(NoListener, InProcess):
    """The client of one request: the subscriber and peer that the chat expects."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.answers: list[PrivateEvent] = []

    def deliver(self, event: PrivateEvent) -> None:
        self.answers.append(event)


def answer(room: str, request: Request, connection: HttpConnection, chat: Chat) -> Response:
    """Say a text in a room, or list its messages."""
    try:
        command = _command(clean_line(room), request)
    except InvalidField as invalid:
        return _error(Rejected(ParseError.INVALID_FIELD, invalid.key))
    if isinstance(command, InvalidCommand):
        return _error(Rejected(command.error))
    if isinstance(command, ReadMessages):
        connection.take_turn(command.limit / MESSAGES_IN_TURN)
    visitor = _Visitor(connection.host)
    session = Session(visitor, visitor)
    _finish(chat.handle(session, command), session, command, connection, chat)
    if session.account is not None:
        connection.name = session.account.name
    connection.charge(session.cost_bytes)
    (event,) = visitor.answers
    match event:
        case Confirmed(said_in, message_id):
            return _json(200, type="ok", room=said_in, id=message_id)
        case HistoryPage(listed, messages, more):
            objects = [past_object(listed, message) for message in messages]
            response = _json(200, type="history", room=listed, messages=objects, more=more)
            connection.charge(len(response.body))
            return response
        case Rejected():
            return _error(event)
        case _:
            raise AssertionError(f"{event!r} does not answer {command!r}")


def refusal(status: int, code: str, message: str) -> Response:
    """The response for an error that is not a rejection by the chat."""
    return _json(status, type="error", code=code, message=message)


def _command(room: str, request: Request) -> Command:
    token = _token(request)
    if request.method == "POST":
        fields = parse(request.body)
        if fields is None:
            return InvalidCommand(ParseError.NOT_JSON)
        if isinstance(fields, InvalidCommand):
            return fields
        if "message" not in fields:
            raise InvalidField("message")
        return Post(token, shown_text(fields, "message"), room, short_string(fields, "key"))
    try:
        parameters = request.parameters()
    except BadRequest:
        raise InvalidField("query") from None
    for name in parameters:
        if name not in _PARAMETERS:
            raise InvalidField(name)
    limit = _number(parameters, "limit")
    return ReadMessages(
        token, DEFAULT_HISTORY if limit is None else limit, room, _number(parameters, "after")
    )


def _token(request: Request) -> Secret | None:
    scheme, _, token = request.fields.get("authorization", "").partition(" ")
    return Secret(token.strip()) if scheme.lower() == "bearer" else None


def _number(parameters: Mapping[str, str], name: str) -> int | None:
    text = parameters.get(name)
    if text is None:
        return None
    if (
        not (text.isascii() and text.isdigit() and len(text) <= len(str(MAX_INTEGER)))
        or int(text) > MAX_INTEGER
    ):
        raise InvalidField(name)
    return int(text)


def _finish(
    result: Result[Any], session: Session, command: Command, connection: HttpConnection, chat: Chat
) -> None:
    """Wait for what the command has to wait for."""
    while True:
        match result:
            case Done() | Leave():
                return
            case More(go_on):
                result = go_on()
            case Busy(gate, go_on):
                with gate.passage(connection.waiter, connection.origin):
                    result = go_on() if go_on else chat.handle(session, command)
            case Pending(job, finish):
                result = finish(connection.waiter.run(job))
            case _:
                assert_never(result)


def _error(rejected: Rejected) -> Response:
    reason = rejected.reason
    message = error_text(reason)
    if reason is ParseError.INVALID_FIELD:
        message += f": {rejected.subject}"
    fields = {"room": rejected.room} if rejected.room else {}
    status = _STATUSES.get(reason, _FORBIDDEN)
    return _json(status, type="error", code=error_word(reason), message=message, **fields)


def _json(status: int, **fields: object) -> Response:
    body = (json.dumps(fields) + "\n").encode()
    headers: tuple[tuple[str, str], ...] = (("Cache-Control", "no-store"),)
    if status == 401:
        headers += (("WWW-Authenticate", "Bearer"),)
    return Response(status, body, "application/json", headers)
