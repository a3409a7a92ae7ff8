"""The kinds of targets: a server in this process, a command, an address."""
