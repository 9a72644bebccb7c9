"""The findings of a study: as plain values, in words, as pictures, on one page."""
