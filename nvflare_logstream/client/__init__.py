"""The reader's side: asks a server for job logs, and puts together what it answers."""
