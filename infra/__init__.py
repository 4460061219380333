"""The local stack and the files that describe a server."""
