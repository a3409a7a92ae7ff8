"""What the client says about answers of the server, in sentences. Pure."""

from __future__ import annotations

from geventchat.chat.commands import (
    ChangePassword,
    Command,
    Delete,
    Impose,
    Invite,
    Kick,
    Lift,
    ParseError,
    PassOwnership,
    Register,
    RevokeTokens,
    Sanction,
    SetKey,
    SetModerated,
    SetModerator,
    SetPrivate,
    SetTopic,
    SetVoice,
)
from geventchat.chat.events import NoticeReason, Rejection
from geventchat.exhaustive import assert_never

NOTICES = {
    NoticeReason.IDLE: "the server disconnected you for being idle",
    NoticeReason.SERVER_FULL: "the server is full",
    NoticeReason.ADDRESS_FULL: "the server has too many connections from this address",
    NoticeReason.SHUTDOWN: "the server is shutting down",
    NoticeReason.KICKED: "an operator disconnected you",
    NoticeReason.BANNED: "you are banned from the server",
    NoticeReason.REPLACED: "you have logged in elsewhere",
}


def success_text(command: Command, room: str) -> str:
    """What a command has done that the server answers with a bare confirmation; empty where nothing has to be said."""
    match command:
        case SetTopic(topic):
            return f"The topic of {room} is: {topic}" if topic else f"{room} has no topic any more."
        case Kick(who):
            return f"{who} was kicked."
        case Impose(Sanction.BAN, who):
            return f"{who} is banned."
        case Impose(Sanction.MUTE, who):
            return f"{who} is muted."
        case Lift(Sanction.BAN, who):
            return f"{who} is no longer banned."
        case Lift(Sanction.MUTE, who):
            return f"{who} is no longer muted."
        case Invite(who):
            return f"{who} is invited to {room}."
        case SetPrivate(on):
            return f"{room} is private." if on else f"{room} is no longer private."
        case SetModerated(on):
            return f"{room} is moderated." if on else f"{room} is no longer moderated."
        case SetKey(key):
            return f"{room} has a new key." if key else f"{room} has no key."
        case SetVoice(who, on):
            return f"{who} has voice." if on else f"{who} has no voice."
        case SetModerator(who, on):
            return f"{who} is a moderator of {room}." if on else f"{who} is no longer a moderator of {room}."
        case PassOwnership(who):
            return f"{who} owns {room}."
        case Delete(id):
            return f"Message {id} is deleted."
        case Register():
            return "The name is yours now: logging in with it needs the password."
        case ChangePassword():
            return "The password is changed."
        case RevokeTokens():
            return "All tokens are revoked."
        case _:
            return ""


def rejection_text(reason: Rejection | ParseError, subject: str) -> str:
    """An error of the server as a sentence; `subject` is the name that it refused."""
    match reason:
        case Rejection.NAME_LENGTH | Rejection.NAME_INVALID:
            return f"The server does not allow the name {subject}."
        case Rejection.NAME_TAKEN:
            return f"The name {subject} is taken."
        case Rejection.ALREADY_LOGGED_IN:
            return "You are already logged in."
        case Rejection.NOT_LOGGED_IN:
            return "The server requires a login first."
        case Rejection.EMPTY_MESSAGE | Rejection.EMPTY_DIRECT_MESSAGE:
            return "The message is empty."
        case Rejection.NO_RECIPIENT:
            return "The message has no recipient."
        case Rejection.USER_NOT_FOUND:
            return "No such user. /who lists the people in the room."
        case Rejection.ROOM_NAME_INVALID:
            return f"The server does not allow the room name {subject}."
        case Rejection.NO_SUCH_ROOM:
            return "No such room. /rooms lists the rooms."
        case Rejection.NOT_IN_ROOM:
            return "You are not in that room."
        case Rejection.ALREADY_IN_LOBBY:
            return "You are in the lobby already."
        case Rejection.TOO_MANY_ROOMS:
            return "There are too many rooms."
        case Rejection.TOPIC_TOO_LONG:
            return "The topic is too long for the server."
        case Rejection.NO_SUCH_MESSAGE:
            return "No such message."
        case Rejection.NOT_PERMITTED:
            return "The server does not allow you to do that."
        case Rejection.WRONG_KEY:
            return "The room needs another key."
        case Rejection.INVITATION_REQUIRED:
            return "The room is private: you need an invitation or its key."
        case Rejection.BANNED_FROM_ROOM:
            return "You are banned from the room."
        case Rejection.MUTED:
            return "You are muted."
        case Rejection.NO_VOICE:
            return "The room is moderated: only people with voice can speak."
        case Rejection.KEY_TOO_LONG:
            return "The key is too long for the server."
        case Rejection.LIST_FULL:
            return "The list is full."
        case Rejection.PASSWORD_REQUIRED:
            return "The name belongs to someone and needs a password."
        case Rejection.WRONG_PASSWORD:
            return "The password is wrong."
        case Rejection.WEAK_PASSWORD:
            return "The server does not allow this password: it needs 8 to 128 characters."
        case Rejection.NAME_RESERVED:
            return f"The name {subject} belongs to someone."
        case Rejection.TOO_MANY_ATTEMPTS:
            return "Too many attempts. Try again later."
        case Rejection.MAILBOX_FULL:
            return "The mailbox is full."
        case ParseError.TOO_LONG:
            return "The message is too long for the server and was not delivered."
        case ParseError.NOT_UTF8:
            return "The server could not decode the message and did not deliver it."
        case ParseError.NOT_JSON | ParseError.INVALID_FIELD | ParseError.UNKNOWN_COMMAND:
            return "The server did not understand the command."
        case ParseError.INVALID_ARGUMENT:
            return "The server did not understand what follows the command."
        case _:
            assert_never(reason)
