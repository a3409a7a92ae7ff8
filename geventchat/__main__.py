"""The command `geventchat`, also as `python -m geventchat`."""

import sys


def main() -> int:
    """Run the command line and return the exit code."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["connect"]:
        # Here, because the server's command line imports gevent, which the client can do without.
        from geventchat.client.app import main as connect

        return connect(arguments[1:])
    from geventchat.cli import main as serve

    return serve(arguments)


if __name__ == "__main__":
    sys.exit(main())
