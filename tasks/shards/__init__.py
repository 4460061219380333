"""Accepted label sets as training shards: samples, tars, versions, readers."""
