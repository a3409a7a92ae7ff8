"""The file that `--ban-list` names. Knows no server."""

from __future__ import annotations

from geventchat.chat.bans import Ban, read_ban_list
from geventchat.settings import Config, ConfigError

_MOST_CHARACTERS = 4_194_304


def read_bans(config: Config, now_ms: int) -> list[Ban]:
    """The bans in the file. Raises ConfigError, which names the line that is wrong."""
    if not config.ban_list:
        return []
    try:
        with open(config.ban_list, encoding="utf-8") as file:
            text = file.read(_MOST_CHARACTERS + 1)
        if len(text) > _MOST_CHARACTERS:
            raise ValueError(f"more than {_MOST_CHARACTERS:,} characters")
        return read_ban_list(text, now_ms, config.limits.server_bans)
    except OSError as error:
        raise ConfigError("ban-list", f"ban-list: cannot read {config.ban_list}: {error.strerror}") from error
    except ValueError as wrong:
        raise ConfigError("ban-list", f"ban-list: {config.ban_list}: {wrong}") from wrong
