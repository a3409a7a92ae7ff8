"""Where scripts are played: clients, connections, fences and time. Knows what a target is, but no kind of target."""
