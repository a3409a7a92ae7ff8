"""One suite of scripts, many servers: a table of servers by scripts, and the causes of each server's differences."""
