"""Networks that are not trainer's own: what `task.model` names, with `--allow-code networks`."""
