"""What a transcript says: text to a Script and back. Pure but for `script`, which reads files; knows no server."""
