"""Charts, contact sheets and heat maps as PNG files."""
