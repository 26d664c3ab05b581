"""A folder of static files: a page that classifies images in the browser. What the browser gets is in `page/`."""
