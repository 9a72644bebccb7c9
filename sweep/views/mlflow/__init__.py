"""A study as MLflow shows it. Nothing else imports MLflow."""
