"""How the flows are deployed, and the live refine service."""
