"""`metrics://`: what Prometheus and health checks ask of a server, over HTTP."""
