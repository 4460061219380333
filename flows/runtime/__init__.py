"""What every flow shares: workspace, chunks of leased assets, reports, the review project."""
