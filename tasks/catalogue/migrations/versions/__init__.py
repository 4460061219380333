"""One file per schema revision, oldest first; how to write one: docs/catalogue.md."""
