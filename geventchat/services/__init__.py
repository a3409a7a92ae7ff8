"""What can block: passwords. Never imports net or dialects."""
