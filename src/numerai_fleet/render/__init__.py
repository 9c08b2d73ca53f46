"""What engines are told of a manifest: each engine in a module of its own."""
