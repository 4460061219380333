"""From the raw bucket to registered assets: checks, sandboxed parsing, side files, licences."""
