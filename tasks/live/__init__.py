"""Answers while the reviewer waits: warm assets, counted clicks, the drawn preview."""
