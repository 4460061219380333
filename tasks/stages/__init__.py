"""The model's stages on one asset: encode, propose, refine, and the runner that isolates errors."""
