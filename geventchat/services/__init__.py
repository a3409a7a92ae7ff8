"""What can block: storage. Never imports net or dialects."""
