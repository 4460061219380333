"""State of every asset, in SQL: tables, allowed moves, leases, events."""
