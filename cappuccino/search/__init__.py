"""What is searched (the space), what a trial is in the record, and the port to whatever proposes the next one."""
