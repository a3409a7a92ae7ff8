"""Interference with a server in this process, below its sockets and its loop: faults, and schedules from a seed."""
