"""The model file: a field as plain arrays, and how it becomes bytes that can be cut at any rank."""
