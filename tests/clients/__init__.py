"""Small clients as people write them from the documents of the dialects, and tests that they work."""
