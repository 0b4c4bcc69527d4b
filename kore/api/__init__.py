"""What `import kore` offers: one function for each thing that KORE does, for programs rather than terminals."""
