"""What runs models: each engine in a module of its own."""
