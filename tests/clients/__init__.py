"""Plain clients as people write them from the documents of the three dialects, and what holds that they work."""
