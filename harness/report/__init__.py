"""Verdicts as text for people and build servers: terminal, HTML page, JUnit XML. Only reads verdicts."""
