"""One suite of scripts, many servers: a table of servers by scripts, with the first difference of each server."""
