"""Files, JSON Lines, images and downloads."""
