"""Numerical parity with the official implementation, on golden inputs and outputs."""
