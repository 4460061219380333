"""The verbs on the world: store, catalogue, model calls, review, shards. Never imports flows."""
