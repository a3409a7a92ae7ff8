"""Sockets: the only part, with the server and the command line, that imports gevent."""
