"""What can be thrown away and made again from the ledger: MLflow, the report, the export."""
