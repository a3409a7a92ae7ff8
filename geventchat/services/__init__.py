"""The services that can block: storage and passwords. Never imports net or dialects."""
