"""The studies that travel with the package, one YAML each, and `schema.json` for editors.

Data alone: `sweep.study` reads it.
"""
