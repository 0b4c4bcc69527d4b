"""What `import kore` offers: one function for each thing that KORE does."""
