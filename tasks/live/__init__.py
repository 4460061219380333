"""Responses while the reviewer waits: loaded assets, click history, preview."""
