"""Sockets: with the server and the command line the only part that imports gevent."""
