"""`kore analyze capture`: what a model still does without its smallest components."""
