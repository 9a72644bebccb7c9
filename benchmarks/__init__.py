"""Every figure the project quotes, and the commands that made them."""
