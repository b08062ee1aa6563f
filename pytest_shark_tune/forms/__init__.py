"""Forms of a model: how it is handed to the compiler."""
