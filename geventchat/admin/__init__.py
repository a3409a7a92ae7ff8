"""`geventchat admin`: what an operator can ask of a running server, on its Unix socket."""
