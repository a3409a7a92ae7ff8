"""What may be done to a server of this process from beneath: to its sockets, to its loop, by a script's faults or a seed."""
