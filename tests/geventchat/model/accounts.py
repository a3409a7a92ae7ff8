"""Accounts: their passwords, the limits on guessing, and messages for offline users; written from docs/protocols.md.

All clients have one address, so every account is known there. In this model everyone is in the lobby. Times are milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.geventchat.model.moderation import ModeratedRooms
from tests.geventchat.model.requests import (
    MAIL_MS,
    MAX_MAIL_OF_SENDER,
    ChangePassword,
    Ignore,
    Login,
    Name,
    Refusal,
    Register,
    Request,
    RevokeTokens,
    Text,
)
from tests.geventchat.model.rooms import Member, Room

FREE_FAILURES = 3
LONGEST_WAIT_MS = 900_000
FORGET_MS = 86_400_000


@dataclass
class Mail:
    """A direct message for an offline user."""

    sender: str
    shown: str
    text: str
    time_ms: int


@dataclass
class Account:
    """A reserved name."""

    shown: str
    password: str
    ignored: set[str] = field(default_factory=set)
    """The keys of other accounts."""
    mail: list[Mail] = field(default_factory=list)
    failures: int = 0
    failed_ms: int = 0

    def is_too_early(self, now_ms: int) -> bool:
        """True when no further guess is verified now."""
        if now_ms >= self.failed_ms + FORGET_MS:
            self.failures = 0
        wait_ms = (
            min(LONGEST_WAIT_MS, 2_000 << min(self.failures - FREE_FAILURES, 20))
            if self.failures >= FREE_FAILURES
            else 0
        )
        return now_ms < self.failed_ms + wait_ms


class AccountRooms(ModeratedRooms):
    """All people, and the accounts of those who have one."""

    def __init__(self) -> None:
        super().__init__()
        self.accounts: dict[str, Account] = {}
        self._holders: dict[Member, Account] = {}
        self.replaced: list[Member] = []
        """Clients whose connections are closed, because others have taken over their names."""

    def remove(self, member: Member, now_ms: int) -> Room:
        self._note_ignored(member)
        self._holders.pop(member, None)
        return super().remove(member, now_ms)

    def _handle(self, member: Member, request: Request, now_ms: int) -> Refusal | None:
        match request:
            case Login(name, password) if member.name is None and name.refusal is None:
                return self._log_in(member, name, password, now_ms)
            case Register() | ChangePassword() | RevokeTokens() if member.name is None:
                return Refusal.NOT_LOGGED_IN
            case Register(password):
                return self._register(member, password)
            case ChangePassword(old, new):
                return self._change_password(member, old, new, now_ms)
            case RevokeTokens():
                if member not in self._holders:
                    return Refusal.NOT_PERMITTED
                self._done(member, "Your tokens are useless now.")
                return None
        refusal = super()._handle(member, request, now_ms)
        if isinstance(request, Ignore):
            self._note_ignored(member)
        return refusal

    def _log_in(self, member: Member, name: Name, password: Text | None, now_ms: int) -> Refusal | None:
        account = self.accounts.get(name.key)
        if account is None:
            return Refusal.NAME_INVALID if password is not None else self._login(member, name, now_ms)
        if password is None:
            return Refusal.PASSWORD_REQUIRED
        refusal = self._verify(account, password, now_ms)
        if refusal is not None:
            return refusal
        holder = self.members.get(name.key)
        if holder is not None:
            self.leave(holder, now_ms)
            holder.receive(holder.dialect.replaced())
            self.replaced.append(holder)
        self._holders[member] = account
        member.ignored |= account.ignored
        self._login(member, name, now_ms)
        mail, account.mail = self._fresh(account, now_ms), []
        for one in mail:
            if one.sender not in member.ignored:
                text = member.dialect.direct_message_received(
                    one.shown, account.shown, one.text, one.time_ms // 1000
                )
                member.receive(text)
        return None

    def _verify(self, account: Account, typed: Text, now_ms: int) -> Refusal | None:
        if account.is_too_early(now_ms):
            return Refusal.TOO_MANY_ATTEMPTS
        if typed.shown != account.password:
            account.failures += 1
            account.failed_ms = now_ms
            return Refusal.WRONG_PASSWORD
        account.failures = 0
        return None

    def _register(self, member: Member, password: Text) -> Refusal | None:
        assert member.name is not None
        if member.name.key in self.accounts:
            return Refusal.NAME_RESERVED
        if not password.shown:
            return Refusal.WEAK_PASSWORD
        account = Account(member.shown, password.shown)
        self.accounts[member.name.key] = self._holders[member] = account
        self._done(member, f"{member.shown} is your name now. Log in with: /login {member.shown} PASSWORD")
        return None

    def _change_password(self, member: Member, old: Text, new: Text, now_ms: int) -> Refusal | None:
        account = self._holders.get(member)
        if account is None:
            return Refusal.NOT_PERMITTED
        if not new.shown:
            return Refusal.WEAK_PASSWORD
        refusal = self._verify(account, old, now_ms)
        if refusal is None:
            account.password = new.shown
            self._done(member, "Your password is changed.")
        return refusal

    def _send_direct(self, member: Member, to: Name, text: str, now_ms: int) -> Refusal | None:
        recipient = self.accounts.get(to.key)
        if not text or to.key in self.members or recipient is None or member not in self._holders:
            return super()._send_direct(member, to, text, now_ms)
        assert member.name is not None
        recipient.mail = self._fresh(recipient, now_ms)
        if sum(one.sender == member.name.key for one in recipient.mail) >= MAX_MAIL_OF_SENDER:
            return Refusal.MAILBOX_FULL
        recipient.mail.append(Mail(member.name.key, member.shown, text, now_ms))
        member.receive(member.dialect.message_kept(recipient.shown))
        return None

    def _fresh(self, account: Account, now_ms: int) -> list[Mail]:
        return [one for one in account.mail if now_ms < one.time_ms + MAIL_MS]

    def _note_ignored(self, member: Member) -> None:
        """An account goes on ignoring the accounts among them."""
        account = self._holders.get(member)
        if account is not None:
            account.ignored = member.ignored & self.accounts.keys()

    def subject(self, member: Member, refusal: Refusal, request: Request) -> str:
        subject = super().subject(member, refusal, request)
        return self.accounts[subject.casefold()].shown if refusal is Refusal.MAILBOX_FULL else subject
