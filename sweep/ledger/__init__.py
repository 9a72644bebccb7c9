"""The folder that holds the truth about a study, and who may write in it."""
