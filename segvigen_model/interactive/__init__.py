"""From clicks to a mask: patch network, multi-scale crops, click decoding, mask selection."""
