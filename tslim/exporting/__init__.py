"""What other programs open, made from a field: meshes, point clouds, depth, cameras, sequences of pictures."""
