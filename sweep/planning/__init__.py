"""The plan: what comes next in a study. Pure: no Ray, no disk, no clock."""
