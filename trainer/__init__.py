"""Training of one run: a task, a policy and a seed. Clusters, searches and trackers are unknown here."""
