"""The live refine service: Label Studio ML backend, webhook receiver, health, metrics."""
