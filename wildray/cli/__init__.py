"""The command line: a command per stage, and demo, doctor, report, purge, mlflow."""
