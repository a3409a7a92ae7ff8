"""What can block: storage and passwords. Never imports net or dialects."""
