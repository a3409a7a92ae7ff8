"""The stage that scripts are played on: clients, connections, fences and time. Knows no kind of target."""
