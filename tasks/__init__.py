"""The pipeline's steps as plain functions: store, catalogue, model stages, review, shards."""
