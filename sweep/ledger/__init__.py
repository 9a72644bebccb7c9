"""The folder that holds the truth about a study, and the lease that says who may write there."""
