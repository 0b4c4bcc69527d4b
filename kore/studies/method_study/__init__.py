"""`kore study`: methods compared on the same data, seeds and budget."""
