"""How much of everything the chat keeps. Pure values; the settings fill them in."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class ChatLimits:
    """Limits on what can grow in the chat."""

    # Recipients of direct messages that are remembered per client.
    contacts: int
    # Rooms in which a client can be, if its dialect allows more than one.
    rooms_per_client: int
    # Rooms that exist.
    rooms: int
    topic_characters: int
    # The messages that are kept of one room, and of all rooms together.
    history_messages: int
    history_bytes: int
    history_total_bytes: int
    # Messages that are listed at once.
    history_page_messages: int
    # How long an empty room is kept.
    empty_room_s: float
    # Rooms of one account that are kept while they are empty, and for how long.
    kept_rooms: int
    kept_room_s: float
    # Bans, and mutes, of one room, both of all rooms together, and of the server.
    room_bans: int
    all_room_bans: int
    server_bans: int
    # Moderators of one room, and accounts with voice in it.
    room_roles: int
    # Invitations to one room that are remembered, and for how long.
    invitations: int
    invitation_s: float
    # Names that one client can ignore.
    ignored: int
    room_key_characters: int
    # A longer one is cut.
    reason_characters: int
    # Accounts, the tokens of one, and how long an unused account is kept.
    accounts: int
    tokens: int
    unused_account_s: float
    # How often one client's typing is announced.
    typing_interval_s: float
    # Names, or bans, in one answer to a client that can be in many rooms.
    listed_users: int
    listed_rooms: int
    # How long the key of a message is known, and how many are, of one name and of all.
    message_key_s: float
    message_keys_per_name: int
    message_keys: int

    def take_over(self, other: ChatLimits) -> None:
        """Have the values of another. For the limits in force, which all parts of a running chat hold."""
        for one in fields(self):
            object.__setattr__(self, one.name, getattr(other, one.name))
