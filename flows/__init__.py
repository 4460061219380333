"""The flows: one file each, reading like the data-flow diagram."""
