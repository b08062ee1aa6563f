"""Forms of a model: the ways to hand it to the compiler."""
