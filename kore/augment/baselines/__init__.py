"""The plain augmentations that the paper compares with (Tables 5 and 6): variants of the item, no tree."""
