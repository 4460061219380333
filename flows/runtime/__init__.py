"""What the flows share: chunks of leased assets, reports, the review project."""
