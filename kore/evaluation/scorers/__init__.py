"""Pure functions of rows and predictions, one file per family of benchmarks; standard library only."""
