"""Public networks' layers, rebuilt from their mathematics in plain PyTorch, with the public names."""
