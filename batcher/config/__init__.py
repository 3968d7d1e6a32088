"""YAML that people write: read strictly, every value with its place, every problem reported at once, in our words."""
