"""What reviewers see: contact sheet, pixel buffers, viewer page, part maps."""
