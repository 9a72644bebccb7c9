"""One run: a task, a policy and a seed, trained exactly. Knows nothing of clusters, searches or trackers."""
