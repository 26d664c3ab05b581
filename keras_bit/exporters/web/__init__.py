"""A folder of static files: a page that classifies images in the browser. The page's files are in `page/`."""
