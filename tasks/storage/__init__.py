"""Blobs in the object store: content addressing, create-only writes, keys, S3 errors."""
