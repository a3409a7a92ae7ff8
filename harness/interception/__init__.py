"""What can be done to a server in this process from below: to its sockets and to its loop, by faults or by a seed."""
