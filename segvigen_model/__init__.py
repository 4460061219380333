"""SegviGen as a library: a mesh goes in, part labels on its own faces come out.

Knows nothing of Prefect, S3, SQL or Label Studio. Import what you need from its modules;
`segvigen_model.segmenter` is the front door.
"""
