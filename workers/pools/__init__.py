"""Worker processes as a supervisor sees them: local ones and Ray actors."""
