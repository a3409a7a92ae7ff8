"""Proves who has an account, and changes what proves it: passwords and tokens. Pure; the time is passed in.

Hashing is a job of a `Pending`. A job looks things up and verifies; only what follows it, back in the chat, changes anything,
and checks first that nothing has changed meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

from geventchat.chat.accounts import Accounts
from geventchat.chat.addresses import origin_of
from geventchat.chat.commands import AccountCommand, AskToken, ChangePassword, Register, RevokeTokens
from geventchat.chat.events import Accepted, Action, Rejection, TokenIssued
from geventchat.chat.guessing import Guessing
from geventchat.chat.limits import ChatLimits
from geventchat.chat.names import Name
from geventchat.chat.ownership import Owners
from geventchat.chat.passwords import (
    TOKEN_BYTES,
    DamagedHash,
    HasherFull,
    HashingFailed,
    Password,
    PasswordHasher,
    Secret,
    WeakPassword,
    is_token,
    prepare,
    stored_token,
    token_from,
    token_matches,
)
from geventchat.chat.records import AccountRecord
from geventchat.chat.results import DONE, Pending, Result, reject
from geventchat.chat.rooms import Room
from geventchat.chat.sessions import Session
from geventchat.exhaustive import assert_never


@dataclass(frozen=True, slots=True)
class Tools:
    """The tools outside the chat, most of which passwords and tokens need."""

    hasher: PasswordHasher
    # Seconds that never go back.
    monotonic: Callable[[], float]
    random_bytes: Callable[[int], bytes]
    # Gets what kept a password from being verified or hashed, for a client at this address.
    report: Callable[[str, Exception], None]


@dataclass(frozen=True, slots=True)
class Proof:
    """The client knows the secret with this hash, which belongs to the account."""

    account: str
    hash: str
    # To be stored in place of it.
    replacement: str | None = None


class Credentials:
    """The passwords and tokens of all accounts."""

    def __init__(
        self,
        tools: Tools,
        accounts: Accounts,
        owners: Owners,
        limits: ChatLimits,
        changed: Callable[[Room], None],
        is_reserved: Callable[[Name], bool],
    ) -> None:
        """`changed` gets each room that belongs to an account from now on.

        `is_reserved` says whether no client can register a name.
        """
        self._hasher = tools.hasher
        self._monotonic = tools.monotonic
        self._random_bytes = tools.random_bytes
        self._report = tools.report
        self._accounts = accounts
        self._owners = owners
        self._limits = limits
        self._changed = changed
        self._is_reserved = is_reserved
        self._guessing = Guessing()

    @property
    def guessing(self) -> Guessing:
        """How often passwords have been guessed."""
        return self._guessing

    # --- Proofs ------------------------------------------------------------------------------------------------------

    def prove(self, key: str, origin: str, typed: Secret) -> Proof | Rejection:
        """A job: whether this is the password or a token of the account, for a client at this address."""
        record = self._accounts.find(key)
        if record is None:
            return Rejection.WRONG_PASSWORD
        return self._limited(record, origin, partial(self._verify, record, typed))

    def holds(self, proof: Proof) -> bool:
        """True while this still proves access to the account."""
        record = self._accounts.find(proof.account)
        return record is not None and (
            proof.hash == record.password_hash or proof.hash in record.token_hashes
        )

    def use(self, proof: Proof, origin: str) -> None:
        """Note a login with this proof from this address."""
        self._accounts.logged_in(proof.account, origin)
        record = self._accounts.find(proof.account)
        if record is not None and proof.replacement is not None:
            self._accounts.change(replace(record, password_hash=proof.replacement))

    def set_password(self, name: Name, password_hash: str) -> bool:
        """Give an account another password without asking for the old one, or make the account: True then."""
        record = self._accounts.find(name.key)
        if record is None:
            self._accounts.add(name, password_hash, "")
            return True
        # Leaked tokens no longer work, and the new password does, however often the old one was guessed.
        self._accounts.change(replace(record, password_hash=password_hash, token_hashes=()))
        self._guessing.forget(record.key)
        return False

    def _limited(
        self, record: AccountRecord, origin: str, verify: Callable[[str, bool], Proof | Literal[False]]
    ) -> Proof | Rejection:
        known = origin in record.origins
        try:
            proof = self._guessing.attempt(
                record.key, origin, known, self._monotonic, partial(verify, origin, known)
            )
        except HasherFull:
            return Rejection.TOO_MANY_ATTEMPTS
        except (HashingFailed, DamagedHash) as error:
            # Whether the password is right is not known.
            self._report(origin, error)
            return Rejection.TOO_MANY_ATTEMPTS
        if proof is None:
            return Rejection.TOO_MANY_ATTEMPTS
        return proof or Rejection.WRONG_PASSWORD

    def _verify(
        self, record: AccountRecord, typed: Secret, origin: str, known: bool
    ) -> Proof | Literal[False]:
        text = typed.reveal()
        if not is_token(text):
            return self._verify_password(record, typed, origin, known)
        for stored in record.token_hashes:
            if token_matches(text, stored):
                return Proof(record.key, stored)
        return False

    def _verify_password(
        self, record: AccountRecord, typed: Secret, origin: str, known: bool
    ) -> Proof | Literal[False]:
        try:
            password = prepare(typed.reveal())
        except WeakPassword:
            # No account has such a password.
            return False
        verified = self._hasher.verify(password, record.password_hash, origin, known)
        return verified.matches and Proof(record.key, record.password_hash, verified.replacement)

    # --- Commands ----------------------------------------------------------------------------------------------------

    def carry_out(self, session: Session, name: Name, command: AccountCommand) -> Result[object]:
        """Carry out a command about the client's own account."""
        if isinstance(command, Register):
            return self._register(session, name, command.password)
        record = None if session.account is None else self._accounts.find(session.account.key)
        if record is None:
            return reject(session, Rejection.NOT_PERMITTED)
        match command:
            case ChangePassword(old, new):
                return self._change_password(session, name, record, old, new)
            case AskToken():
                return self._issue_token(session, record)
            case RevokeTokens(token):
                revoked = record.token_hashes if token is None else (stored_token(token),)
                left = tuple(stored for stored in record.token_hashes if stored not in revoked)
                self._accounts.change(replace(record, token_hashes=left))
                session.subscriber.deliver(Accepted(Action.TOKENS_REVOKED, subject=record.name))
                return DONE
            case _:
                assert_never(command)

    def _register(self, session: Session, name: Name, typed: Secret) -> Result[Any]:
        refusal = self._refuse_registration(session, name)
        if refusal is not None:
            return reject(session, refusal)
        try:
            password = prepare(typed.reveal())
        except WeakPassword:
            return reject(session, Rejection.WEAK_PASSWORD)
        # Counted last, since only this takes a hash and perhaps a place.
        if not session.peer.can_register():
            return reject(session, Rejection.TOO_MANY_ATTEMPTS)
        origin = origin_text(session)

        def finish(hashed: str | Rejection) -> Result[object]:
            if session.name is not name:
                return DONE
            if isinstance(hashed, Rejection):
                return reject(session, hashed)
            refusal = self._refuse_registration(session, name)
            if refusal is not None:
                return reject(session, refusal)
            session.account = self._accounts.add(name, hashed, origin)
            for room in self._owners.adopt(session):
                self._changed(room)
            session.subscriber.deliver(Accepted(Action.REGISTERED, subject=name.shown))
            return DONE

        return Pending(partial(self._hash, password, origin, False), finish)

    def _refuse_registration(self, session: Session, name: Name) -> Rejection | None:
        if session.account is not None or self._accounts.find(name.key) is not None:
            return Rejection.NAME_RESERVED
        if self._is_reserved(name):
            # Since this client has logged in: otherwise it could not use the name. An operator's account is made elsewhere.
            return Rejection.NAME_RESERVED
        return Rejection.LIST_FULL if self._accounts.is_full else None

    def _change_password(
        self, session: Session, name: Name, record: AccountRecord, old: Secret, new: Secret
    ) -> Result[Any]:
        try:
            password = prepare(new.reveal())
        except WeakPassword:
            return reject(session, Rejection.WEAK_PASSWORD)
        origin = origin_text(session)

        def job() -> tuple[str, str] | Rejection:
            # Not with a token: those are kept in more places.
            proof = self._limited(record, origin, partial(self._verify_password, record, old))
            if isinstance(proof, Rejection):
                return proof
            hashed = self._hash(password, origin, origin in record.origins)
            return hashed if isinstance(hashed, Rejection) else (proof.hash, hashed)

        def finish(hashed: tuple[str, str] | Rejection) -> Result[object]:
            if session.name is not name:
                return DONE
            if isinstance(hashed, Rejection):
                session.peer.failed_to_prove(record.name, hashed)
                return reject(session, hashed)
            now = self._accounts.find(record.key)
            if now is None or now.password_hash != hashed[0]:
                return reject(session, Rejection.WRONG_PASSWORD)
            self._accounts.change(replace(now, password_hash=hashed[1]))
            session.subscriber.deliver(Accepted(Action.PASSWORD_CHANGED, subject=record.name))
            return DONE

        return Pending(job, finish)

    def _issue_token(self, session: Session, record: AccountRecord) -> Result[object]:
        if len(record.token_hashes) >= self._limits.tokens:
            return reject(session, Rejection.LIST_FULL)
        token, stored = token_from(self._random_bytes(TOKEN_BYTES))
        self._accounts.change(replace(record, token_hashes=(*record.token_hashes, stored)))
        session.subscriber.deliver(TokenIssued(token))
        return DONE

    def _hash(self, password: Password, origin: str, known: bool) -> str | Rejection:
        """A part of a job."""
        try:
            return self._hasher.hash(password, origin, known)
        except HasherFull:
            return Rejection.TOO_MANY_ATTEMPTS
        except HashingFailed as error:
            self._report(origin, error)
            return Rejection.TOO_MANY_ATTEMPTS


def origin_text(session: Session) -> str:
    """The address of a client as its guesses are counted; for a client of a Unix socket, the user that it runs as."""
    return session.peer.host if session.address is None else str(origin_of(session.address).network_address)
