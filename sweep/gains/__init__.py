"""The comparisons of a study, the looks at them, and how far the study is. The tests are in `statistics`."""
