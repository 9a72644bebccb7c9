"""A study as Parquet, with a data dictionary and a notebook."""
