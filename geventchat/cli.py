"""The command `geventchat`: which program runs, and with which settings."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    match words[:1]:
        case ["connect"]:
            from geventchat.client.app import main as connect

            return connect(words[1:])
        case ["health"]:
            from geventchat.health import main as health

            return health(words[1:])
        case ["admin"]:
            from geventchat.admin.command import main as admin

            return admin(words[1:])
        case ["passwd"]:
            from geventchat.passwd import main as passwd

            return passwd(words[1:])
    # Imported here, because the client starts in half the time without the settings of the server.
    from geventchat.arguments import effective, parse, resolve_arguments, show
    from geventchat.settings import EXIT_CONFIGURATION, ConfigError

    arguments = parse(words)
    try:
        settings = resolve_arguments(arguments, os.environ)
        settings.check()
    except ConfigError as error:
        print(f"geventchat: {error}", file=sys.stderr)
        return EXIT_CONFIGURATION
    if arguments.check:
        from geventchat.ban_list import read_bans
        from geventchat.net.tls import Certificate

        try:
            config = settings.config
            read_bans(config, 0)
            for listen in config.listen:
                if listen.is_tls:
                    Certificate(*config.certificate_of(listen))
        except ConfigError as error:
            print(f"geventchat: {error}", file=sys.stderr)
            return EXIT_CONFIGURATION
        return show(effective(settings))
    from geventchat.daemon import run

    return run(settings, lambda: resolve_arguments(arguments, os.environ), words)
