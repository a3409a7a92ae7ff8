"""One word for every error and notice: what `line` sends behind `ERR` and `INFO`, and the codes of `json` version 2."""

from __future__ import annotations

from geventchat.chat.commands import ParseError
from geventchat.chat.events import NoticeReason, Rejection
from geventchat.exhaustive import assert_never


def error_word(reason: Rejection | ParseError) -> str:
    """The word for a refused command, or for a line that is not one."""
    match reason:
        case Rejection.NAME_LENGTH | Rejection.NAME_INVALID:
            return "invalid-username"
        case Rejection.NAME_TAKEN:
            return "username-taken"
        case Rejection.ALREADY_LOGGED_IN:
            return "already-logged-in"
        case Rejection.NOT_LOGGED_IN:
            return "must-login-first"
        case Rejection.EMPTY_MESSAGE:
            return "empty-message"
        case Rejection.NO_RECIPIENT | Rejection.EMPTY_DIRECT_MESSAGE:
            return "invalid-dm-format"
        case Rejection.USER_NOT_FOUND:
            return "user-not-found"
        case Rejection.ROOM_NAME_INVALID:
            return "invalid-room-name"
        case Rejection.NO_SUCH_ROOM:
            return "no-such-room"
        case Rejection.NOT_IN_ROOM:
            return "not-in-room"
        case Rejection.ALREADY_IN_LOBBY:
            return "already-in-lobby"
        case Rejection.TOO_MANY_ROOMS:
            return "too-many-rooms"
        case Rejection.TOPIC_TOO_LONG:
            return "topic-too-long"
        case Rejection.NO_SUCH_MESSAGE:
            return "no-such-message"
        case Rejection.NOT_PERMITTED:
            return "not-permitted"
        case Rejection.WRONG_KEY:
            return "wrong-key"
        case Rejection.INVITATION_REQUIRED:
            return "invitation-required"
        case Rejection.BANNED_FROM_ROOM:
            return "banned"
        case Rejection.NO_VOICE | Rejection.MUTED:
            return "muted"
        case Rejection.KEY_TOO_LONG:
            return "key-too-long"
        case Rejection.LIST_FULL:
            return "list-full"
        case Rejection.PASSWORD_REQUIRED:
            return "password-required"
        case Rejection.WRONG_PASSWORD:
            return "wrong-password"
        case Rejection.WEAK_PASSWORD:
            return "weak-password"
        case Rejection.NAME_RESERVED:
            return "name-reserved"
        case Rejection.TOO_MANY_ATTEMPTS:
            return "too-many-attempts"
        case Rejection.MAILBOX_FULL:
            return "mailbox-full"
        case ParseError.TOO_LONG:
            return "line-too-long"
        case ParseError.NOT_UTF8:
            return "invalid-utf8"
        case ParseError.NOT_JSON:
            return "invalid-json"
        case ParseError.INVALID_FIELD:
            return "invalid-field"
        case ParseError.UNKNOWN_COMMAND:
            return "unknown-command"
        case ParseError.INVALID_ARGUMENT:
            return "invalid-argument"
        case _:
            assert_never(reason)


def notice_word(reason: NoticeReason) -> str:
    """The word for the reason why the server closes a connection."""
    match reason:
        case NoticeReason.IDLE:
            return "idle-timeout"
        case NoticeReason.SERVER_FULL:
            return "server-full"
        case NoticeReason.ADDRESS_FULL:
            return "too-many-connections"
        case NoticeReason.SHUTDOWN:
            return "server-shutdown"
        case NoticeReason.KICKED:
            return "kicked"
        case NoticeReason.BANNED:
            return "banned"
        case NoticeReason.REPLACED:
            return "logged-in-elsewhere"
        case _:
            assert_never(reason)
