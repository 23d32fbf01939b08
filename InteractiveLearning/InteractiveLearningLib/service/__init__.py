"""What the engine service stands on: accounts, the audit log, keyed hashes of patients."""
