"""The whole model: five networks with their sizes, its inference, and how it fits on a device."""
