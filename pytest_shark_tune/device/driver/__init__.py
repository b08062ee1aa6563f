"""The driver's own compiler and its cache: what a driver compiles as it loads a module."""
