"""A way back: scrub blobs, make again what can be made again, backup, restore, import."""
