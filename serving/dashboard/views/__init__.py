"""One page a file; each is a function that draws the page from the sources it is given."""
