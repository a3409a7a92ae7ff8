"""The chat in a browser: HTTP, the chat page, WebSockets, and the interface for bots."""
