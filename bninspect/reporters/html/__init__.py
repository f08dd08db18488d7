"""The HTML page and the output of notebooks: templates and the views that fill them."""
