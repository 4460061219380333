"""Deployments of the flows, and the live refine service."""
