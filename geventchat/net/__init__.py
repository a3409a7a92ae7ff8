"""Sockets and greenlets. Only this package, the server and the daemon import gevent."""
