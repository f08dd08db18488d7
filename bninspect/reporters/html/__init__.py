"""The page to look at: templates, and what of the layers goes into them."""
