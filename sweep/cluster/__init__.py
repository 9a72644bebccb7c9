"""The plan's work on a Ray cluster. Nothing else imports Ray."""
