"""Measure a segmenter: protocol, metrics, baselines, intervals, pictures."""
