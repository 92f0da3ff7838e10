"""Where parameters, labelmap and data come from, and where a script finds them."""
