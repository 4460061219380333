"""Importers: other makers' models to labelled folders, one command per source."""
