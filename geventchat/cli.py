"""The command `geventchat`: which program runs, and with which settings."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from geventchat.arguments import effective, parse, resolve_arguments, show
from geventchat.settings import EXIT_CONFIGURATION, ConfigError


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
        case ["passwd"]:
            from geventchat.passwd import main as passwd

            return passwd(words[1:])
    arguments = parse(words)
    try:
        settings = resolve_arguments(arguments, os.environ)
        config = settings.config
    except ConfigError as error:
        print(f"geventchat: {error}", file=sys.stderr)
        return EXIT_CONFIGURATION
    if arguments.check:
        from geventchat.net.tls import Certificate

        try:
            for listen in config.listen:
                if listen.is_tls:
                    Certificate(*config.certificate_of(listen))
        except ConfigError as error:
            print(f"geventchat: {error}", file=sys.stderr)
            return EXIT_CONFIGURATION
        return show(effective(settings))
    from geventchat.daemon import run

    return run(config, settings.program)
